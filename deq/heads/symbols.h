// Reading and answering where a cell has one state for each place and symbol (Cell::symbols): with
// the same weights for every symbol.
#pragma once

#include "deq/heads/head.h"
#include "deq/heads/reader.h"

namespace deq {

/// Token 0, a blank, or s + 1, symbol s is given: what (place, symbol) sees is one of three rows,
/// of a blank, of the symbol that is given, or of another one that is. (B, T, S X).
class SymbolReader : public Reader {
 public:
  SymbolReader(int64_t symbols, int64_t width);
  at::Tensor forward(const at::Tensor& tokens) const override;
  void initialise(double std) override;

 private:
  int64_t symbols_;
  at::Tensor kinds_;  // (3, X)
};

/// The logit of symbol s is <weight, z_s>, of states (B, T, S w).
class SymbolHead final : public Head {
 public:
  SymbolHead(int64_t symbols, int64_t width);
  at::Tensor loss(const at::Tensor& hidden, const at::Tensor& targets) const override;
  at::Tensor log_probabilities(const at::Tensor& hidden) const override;
  void initialise(double std) override;
  Parts parts() const override;

 private:
  struct Weights;
  int64_t symbols_, width_;
  std::shared_ptr<Weights> weights_;
};

}  // namespace deq
