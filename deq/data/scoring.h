// What a task says of answers besides their loss.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <utility>
#include <vector>

#include "deq/data/batch.h"

namespace deq {

/// Real values that a model answers.
struct RealAnswers {
  at::Tensor values;                   ///< (B, T, columns, n) double: one of each, or its quantiles
  std::vector<int64_t> percents = {};  ///< which quantiles, rising; empty: n is 1
};

/// Numbers about one part of what is answered.
struct ScoreRow {
  std::string name;  ///< "": of all
  std::vector<std::pair<std::string, double>> numbers;
};

/// Scores answers by numbers that add up over problems, batches and processes.
class Scoring {
 public:
  virtual ~Scoring() = default;

  /// (B, N) double on the CPU: what of each problem adds up.
  virtual at::Tensor of_problems(const RealAnswers& answers, const Batch& batch) const = 0;

  /// What the sums (N) say; the first row is of all.
  virtual std::vector<ScoreRow> rows(const at::Tensor& sums,
                                     const std::vector<int64_t>& percents) const = 0;

  /// Those of all in a line.
  virtual std::string text(const std::vector<ScoreRow>& rows) const = 0;
};

}  // namespace deq
