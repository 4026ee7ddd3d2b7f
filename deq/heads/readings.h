// Ways to read a symbol, and to answer one, that know what it stands for: a value on a scale, or
// bits.
#pragma once

#include "deq/base/fields.h"
#include "deq/heads/head.h"
#include "deq/heads/reader.h"

namespace deq {

/// What a symbol is to a model.
enum class Reading {
  Symbols,  ///< a row of a table
  Values,   ///< of n symbols number i is the value i / (n - 1)
  Rows,     ///< so, and a grid's row is one place of a sequence
  Bits,     ///< the first 2^b are numbers of b bits; each of the others is itself
  Series    ///< a real value (base/levels.h); a grid's row is one place of a sequence
};
template <>
struct Names<Reading> {
  static constexpr const char* values[] = {"symbols", "values", "rows", "bits", "series"};
};

/// x = W v + b of the values v of `row` symbols that stand side by side: (B, T row) int64 to (B, T,
/// X).
class ValueReader : public Reader {
 public:
  ValueReader(int64_t symbols, int64_t row, int64_t width);
  at::Tensor forward(const at::Tensor& tokens) const override;
  void initialise(double std) override;

 private:
  double largest_;
  int64_t row_;
  at::Tensor weight_, bias_;  // (X, row), (X)
};

/// x = W v + b of the bits v of a number; of the n-th symbol behind the numbers, a vector of its
/// own.
class BitReader : public Reader {
 public:
  BitReader(int64_t symbols, int64_t bits, int64_t width);
  at::Tensor forward(const at::Tensor& tokens) const override;
  void initialise(double std) override;

 private:
  int64_t bits_;
  at::Tensor weight_, bias_, others_;  // (b, X), (X), (symbols - 2^b, X)
};

/// A softmax of O h + b, without a table that anything shares.
class ClassHead final : public Head {
 public:
  ClassHead(int64_t answers, int64_t width);
  at::Tensor loss(const at::Tensor& hidden, const at::Tensor& targets) const override;
  at::Tensor log_probabilities(const at::Tensor& hidden) const override;
  void initialise(double std) override;
  Parts parts() const override;

 private:
  struct Weights;
  std::shared_ptr<Weights> weights_;
};

/// Among the numbers of b bits, each bit by itself: log p(s) = sum over bits of the log of a
/// sigmoid.
class BitHead final : public Head {
 public:
  BitHead(int64_t bits, int64_t width);
  at::Tensor loss(const at::Tensor& hidden, const at::Tensor& targets) const override;
  at::Tensor log_probabilities(const at::Tensor& hidden) const override;
  void initialise(double std) override;
  Parts parts() const override;

 private:
  struct Weights;
  int64_t bits_;
  std::shared_ptr<Weights> weights_;
};

}  // namespace deq
