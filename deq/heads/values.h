// Reading real values and answering them: several columns at each place of a series.
#pragma once

#include "deq/base/fields.h"
#include "deq/heads/head.h"
#include "deq/heads/reader.h"

namespace deq {

/// What is answered of a value.
enum class ValueAnswer {
  Quantiles,  ///< its quantiles
  Values      ///< one number
};
template <>
struct Names<ValueAnswer> {
  static constexpr const char* values[] = {"quantiles", "values"};
};

/// By which error one number is trained: squared leads to the mean, absolute to the median.
enum class ValueError { Squared, Absolute };
template <>
struct Names<ValueError> {
  static constexpr const char* values[] = {"squared", "absolute"};
};

/// How values are answered.
struct ValueOptions {
  ValueAnswer head = ValueAnswer::Quantiles;
  ValueError error = ValueError::Squared;
  std::vector<int64_t> quantiles = {5, 10, 25, 50, 75, 90, 95};

  static void fields(auto& self, auto&& field) {
    field("head", self.head, "what is answered of a real value");
    field("value_error", self.error, "of head values: what its loss is the mean of");
    field("quantiles", self.quantiles, "of head quantiles: which, in per cent, rising, with 50");
  }
};

/// x = W [values, whether each is missing, whether they are asked, how far behind the first that
/// is] + b of C columns that stand side by side: ids (B, T C) as of base/levels.h to (B, T, X).
/// Values that are not known count as 0, which is their mean.
class SeriesReader : public Reader {
 public:
  SeriesReader(int64_t columns, int64_t width);
  at::Tensor forward(const at::Tensor& ids) const override;
  void initialise(double std) override;

 private:
  int64_t columns_;
  at::Tensor weight_, bias_;  // (X, 2 C + 2), (X)
};

/// From states to real values. The targets of its loss are ids of values, (B, T, C); what it gives
/// stands where they do and is no likelihood. It has no probabilities.
class ValueHead : public Head {
 public:
  /// (B, T, C, n): one number of each column, or its quantiles, which may cross.
  virtual at::Tensor values(const at::Tensor& hidden) const = 0;
  /// Which quantiles, in per cent; empty: one number.
  virtual std::vector<int64_t> percents() const = 0;
  /// Throws deq::Error.
  at::Tensor log_probabilities(const at::Tensor& hidden) const final;
};

/// Throws deq::Error for quantiles that are not 1 to 99, rising, with 50 among them.
std::unique_ptr<ValueHead> make_value_head(const ValueOptions& options, int64_t columns,
                                           int64_t width);

}  // namespace deq
