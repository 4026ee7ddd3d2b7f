// What holds for every layer that is defined by a condition, whatever it is: a sample is alone.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "deq/solvers/report.h"

namespace deq::testing {

using Tensors = std::map<std::string, at::Tensor>;

/// A layer's results, (B, ...) each, and how each sample ended.
struct LayerResult {
  Tensors outputs;
  Report report;
};

/// A layer on a batch of random samples.
struct LayerCase {
  std::string name;
  Tensors batched;  ///< (B, ...), those of a floating type with a gradient
  Tensors shared;   ///< without B
  std::function<LayerResult(const Tensors& batched, const Tensors& shared)> run;
};

/// A sample's outputs, gradients with respect to what is batched, reason, residual and steps are
/// those that it has in a batch of one; in another order of the batch; on 1, 2 and 3 threads; and
/// beside a sample that holds NaN: to the bit. The latter has no reason to be `Converged`, and its
/// outputs and gradients do not pass for numbers that are right: 0 or not finite for gradients.
void check_samples_alone(const LayerCase& layer);

/// Gradients with respect to every input of a floating type, batched and shared (double), against
/// central differences of random combinations of all outputs: relative to the largest entry.
void check_gradients(const LayerCase& layer, double step = 1e-6, double tolerance = 1e-6);

}  // namespace deq::testing
