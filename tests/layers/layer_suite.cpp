#include "tests/layers/layer_suite.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <limits>

namespace deq::testing {
namespace {

using at::Tensor;

int64_t batch_of(const LayerCase& layer) { return layer.batched.begin()->second.size(0); }

Tensors selected(const Tensors& tensors, const Tensor& samples) {
  Tensors found;
  for (const auto& [name, tensor] : tensors) found[name] = tensor.detach().index_select(0, samples);
  return found;
}

/// The same for a sample wherever it stands: a function of its number in the whole batch.
Tensor cotangent(const Tensor& output, const Tensor& samples) {
  const Tensor number = at::arange(output.numel() / std::max<int64_t>(1, output.size(0)),
                                   output.options().requires_grad(false));
  const Tensor rows = samples.to(output.scalar_type()).unsqueeze(1);
  return at::sin(1 + 3 * rows + 0.7 * number).view_as(output);
}

struct Outcome {
  Tensors outputs, gradients;
  Report report;
};

Outcome outcome(const LayerCase& layer, const Tensors& batched, const Tensor& samples) {
  Tensors inputs;
  std::vector<Tensor> leaves;
  std::vector<std::string> names;
  for (const auto& [name, tensor] : batched) {
    inputs[name] = tensor.detach().clone();
    if (!at::isFloatingType(tensor.scalar_type())) continue;
    leaves.push_back(inputs[name].requires_grad_());
    names.push_back(name);
  }
  const LayerResult result = layer.run(inputs, layer.shared);
  Outcome found;
  found.report = result.report;
  Tensor loss = at::zeros({}, leaves.front().options().requires_grad(false));
  for (const auto& [name, output] : result.outputs) {
    found.outputs[name] = output.detach();
    if (output.requires_grad()) loss = loss + (output * cotangent(output, samples)).sum();
  }
  const auto gradients = torch::autograd::grad({loss}, leaves, {}, {}, false, /*unused=*/true);
  for (size_t k = 0; k < leaves.size(); ++k)
    found.gradients[names[k]] =
        gradients[k].defined() ? gradients[k] : at::zeros_like(leaves[k]).detach();
  return found;
}

void expect_same(const Tensors& alone, const Tensors& beside, const Tensor& samples,
                 const std::string& what) {
  for (const auto& [name, tensor] : beside) {
    const Tensor wanted = tensor.index_select(0, samples), got = alone.at(name);
    EXPECT_TRUE(at::equal(wanted.nan_to_num(), got.nan_to_num()) &&
                at::equal(wanted.isnan(), got.isnan()))
        << what << ": " << name << ", by up to " << (wanted - got).abs().max();
  }
}

/// `few` are the samples `samples` of those in `all`.
void expect_same(const Outcome& few, const Outcome& all, const Tensor& samples,
                 const std::string& what) {
  expect_same(few.outputs, all.outputs, samples, what + ", output");
  expect_same(few.gradients, all.gradients, samples, what + ", gradient");
  for (const auto& [got, wanted] : {std::pair{few.report.reason, all.report.reason},
                                    std::pair{few.report.residual, all.report.residual},
                                    std::pair{few.report.steps, all.report.steps}}) {
    ASSERT_TRUE(got.defined() && wanted.defined()) << what;
    EXPECT_TRUE(at::equal(got, wanted.index_select(0, samples))) << what << ", report";
  }
}

void expect_no_numbers(const Outcome& found, int64_t sample, const std::string& what) {
  EXPECT_NE(found.report.reason[sample].item<uint8_t>(), uint8_t(Reason::Converged)) << what;
  for (const auto& [name, gradient] : found.gradients) {
    const Tensor own = gradient[sample];
    EXPECT_TRUE(own.eq(0).logical_or(own.isfinite().logical_not()).all().item<bool>())
        << what << ": the gradient of " << name << " passes for one";
  }
}

/// An input with NaN in one sample, which must leave the others alone.
void check_nan(const LayerCase& layer, const Outcome& all, const std::string& name) {
  const int64_t B = batch_of(layer), bad = B / 2;
  if (layer.batched.at(name)[bad].numel() == 0) return;
  Tensors spoilt = selected(layer.batched, at::arange(B));
  spoilt[name][bad].view({-1})[0].fill_(std::numeric_limits<double>::quiet_NaN());
  const Tensor others = at::cat({at::arange(bad), at::arange(bad + 1, B)});
  const std::string what = layer.name + ", NaN in " + name;
  const Outcome found = outcome(layer, spoilt, at::arange(B));
  Outcome kept;
  for (const auto& [key, tensor] : found.outputs)
    kept.outputs[key] = tensor.index_select(0, others);
  for (const auto& [key, tensor] : found.gradients)
    kept.gradients[key] = tensor.index_select(0, others);
  kept.report.reason = found.report.reason.index_select(0, others);
  kept.report.residual = found.report.residual.index_select(0, others);
  kept.report.steps = found.report.steps.index_select(0, others);
  expect_same(kept, all, others, what);
  expect_no_numbers(found, bad, what);
}

}  // namespace

void check_samples_alone(const LayerCase& layer) {
  const int64_t B = batch_of(layer);
  const Outcome all = outcome(layer, layer.batched, at::arange(B));
  for (int64_t b = 0; b < B; ++b) {
    const Tensor one = at::full({1}, b, at::kLong);
    expect_same(outcome(layer, selected(layer.batched, one), one), all, one,
                layer.name + ", alone");
  }
  const Tensor turned = at::arange(B - 1, -1, -1);
  expect_same(outcome(layer, selected(layer.batched, turned), turned), all, turned,
              layer.name + ", turned round");
  const int threads = at::get_num_threads();
  for (const int count : {1, 2, 3}) {
    at::set_num_threads(count);
    expect_same(outcome(layer, layer.batched, at::arange(B)), all, at::arange(B),
                layer.name + ", threads");
  }
  at::set_num_threads(threads);
  for (const auto& [name, tensor] : layer.batched) {
    if (at::isFloatingType(tensor.scalar_type())) check_nan(layer, all, name);
  }
}

namespace {

/// A fixed random combination of all outputs.
Tensor combination(const LayerCase& layer, const Tensors& batched, const Tensors& shared) {
  const LayerResult result = layer.run(batched, shared);
  Tensor sum = at::zeros({}, at::kDouble);
  for (const auto& [name, output] : result.outputs) {
    if (!at::isFloatingType(output.scalar_type())) continue;
    sum = sum + (output * cotangent(output, at::arange(output.size(0)))).sum();
  }
  return sum;
}

}  // namespace

void check_gradients(const LayerCase& layer, double step, double tolerance) {
  Tensors batched, shared;
  std::vector<std::pair<std::string, Tensor>> leaves;
  for (const bool by_sample : {true, false}) {
    for (const auto& [name, tensor] : by_sample ? layer.batched : layer.shared) {
      Tensor& own = (by_sample ? batched : shared)[name];
      own = tensor.detach().clone();
      if (at::isFloatingType(tensor.scalar_type())) leaves.emplace_back(name, own.requires_grad_());
    }
  }
  std::vector<Tensor> inputs;
  for (const auto& leaf : leaves) inputs.push_back(leaf.second);
  const auto exact = torch::autograd::grad({combination(layer, batched, shared)}, inputs, {}, {},
                                           false, /*unused=*/true);
  for (size_t k = 0; k < leaves.size(); ++k) {
    const auto& [name, leaf] = leaves[k];
    const Tensor got = exact[k].defined() ? exact[k].contiguous() : at::zeros_like(leaf);
    Tensor numbers = leaf.detach().view({-1});
    const Tensor wanted = at::zeros_like(numbers);
    for (int64_t i = 0; i < numbers.numel(); ++i) {
      const double at_i = numbers[i].item<double>();
      const auto value = [&](double moved) {
        numbers[i] = moved;
        return combination(layer, batched, shared).item<double>();
      };
      wanted[i] = (value(at_i + step) - value(at_i - step)) / (2 * step);
      numbers[i] = at_i;
    }
    const double size = std::max(1e-3, wanted.abs().max().item<double>());
    EXPECT_LE((got.view({-1}) - wanted).abs().max().item<double>(), tolerance * size)
        << layer.name << ": " << name << "\n"
        << got.view({-1}) << wanted;
  }
}

}  // namespace deq::testing
