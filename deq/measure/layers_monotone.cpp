// A monotone equilibrium on MNIST: 784 -> 87 -> 10, batches of 128, Adam, as published (Winston and
// Kolter, NeurIPS 2020); float.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "deq/cells/monotone.h"
#include "deq/data/idx.h"
#include "deq/gradients/implicit.h"
#include "deq/layers/equilibrium.h"
#include "deq/measure/layer_workloads.h"
#include "deq/solvers/peaceman_rachford.h"
#include "deq/train/optimizer.h"

namespace deq {
namespace {

using at::Tensor;

constexpr int64_t kWidth = 87, kPixels = 784, kBatch = 128;

/// x (N, 1, 784), of mean 0 and deviation 1, and classes (N).
struct Examples {
  Tensor x, y;
};

Examples read(const std::filesystem::path& folder, const std::string& set) {
  const Tensor pixels = read_idx(folder / (set + "-images-idx3-ubyte")).to(at::kFloat).div_(255);
  DEQ_CHECK(pixels.dim() == 3 && pixels.size(0) > 0 && pixels[0].numel() == kPixels,
            "data = '{}': images [{}]; expected [N, 28, 28]", folder.string(),
            fmt::join(pixels.sizes(), ", "));
  const Tensor classes = read_idx(folder / (set + "-labels-idx1-ubyte")).to(at::kLong);
  DEQ_CHECK(
      classes.dim() == 1 && classes.size(0) == pixels.size(0) && classes.max().item<int64_t>() < 10,
      "data = '{}': labels [{}]; expected a class below 10 for each of {} images", folder.string(),
      fmt::join(classes.sizes(), ", "), pixels.size(0));
  return {pixels.sub_(0.1307).div_(0.3081).view({-1, 1, kPixels}), classes};
}

class Network {
 public:
  explicit Network(double tolerance)
      : cell_({.width = kWidth, .input = kPixels, .margin = 1, .direct = 0}),
        solver_(PeacemanRachford{}),
        stop_{.max_steps = 100, .rel_tol = tolerance} {
    at::manual_seed(1);
    at::NoGradGuard no_tape;
    for (auto& item : cell_.named_parameters()) {  // as LibTorch's linear layers begin
      const bool input = item.key().starts_with("inject");
      const double most = 1 / std::sqrt(double(input ? kPixels : kWidth));
      item.value().uniform_(-most, most);
      parameters_[item.key()] = item.value();
    }
    const double most = 1 / std::sqrt(double(kWidth));
    parameters_["head"] = at::empty({10, kWidth}).uniform_(-most, most).requires_grad_(true);
    parameters_["bias"] = at::empty({10}).uniform_(-most, most).requires_grad_(true);
    descent_ = std::make_unique<Descent>(Adam{}, parameters_);
  }

  Tensor logits(const Tensor& x) {
    const Bound f = cell_.bind(x, {});
    const EquilibriumOptions how{
        .solver = solver_, .stop = stop_, .gradient = Implicit{.solver = solver_, .stop = stop_}};
    found = equilibrium(f.f, at::zeros({x.size(0), 1, cell_.state_width()}), how);
    return at::linear(found.z.squeeze(1), parameters_.at("head"), parameters_.at("bias"));
  }

  void step(const Examples& batch, double rate) {
    const Tensor loss = at::cross_entropy_loss(logits(batch.x), batch.y);
    descent_->zero_gradients();
    loss.backward();
    descent_->step(rate);
  }

  Equilibrated found;

 private:
  MonotoneCell cell_;
  Solver solver_;
  StopRule stop_;
  NamedTensors parameters_;
  std::unique_ptr<Descent> descent_;
};

/// The slowest row's: what a batch waits for.
double most_steps(const Report& report) { return double(report.steps.max().item<int64_t>()); }

LayerCost step(const Examples& examples, double tolerance, const LayersOptions& options) {
  Network network(tolerance);
  const int64_t B = std::min(samples_of(options, kBatch), examples.x.size(0));
  const Examples batch{examples.x.narrow(0, 0, B), examples.y.narrow(0, 0, B)};
  for (int warm = 0; warm < 5; ++warm) network.step(batch, 1e-3);
  const double spent = least_milliseconds(options.repeats, [&] { network.step(batch, 1e-3); });
  LayerCost cost =
      cost_of(fmt::format("training step, {:.0e}", tolerance), spent, network.found.report);
  cost.note = fmt::format("{:.1f} steps backward", most_steps(network.found.adjoint()));
  return cost;
}

/// So many epochs, a cost each; the rate falls to a tenth after ten.
void train(const Examples& examples, const Examples& test, double tolerance,
           const LayersOptions& options, std::vector<LayerCost>& costs) {
  Network network(tolerance);
  const int64_t N = examples.x.size(0), B = samples_of(options, kBatch);
  for (int64_t epoch = 1; epoch <= options.epochs; ++epoch) {
    const Tensor order = at::randperm(N);
    LayerCost cost;
    cost.part = fmt::format("epoch {}, {:.0e}", epoch, tolerance);
    cost.samples = N;
    cost.error = cost.steps = cost.converged = 0;
    double backward = 0, batches = 0;
    const double begin = processor_seconds();
    for (int64_t at = 0; at < N; at += B, ++batches) {
      const Tensor rows = order.narrow(0, at, std::min(B, N - at));
      network.step({examples.x.index_select(0, rows), examples.y.index_select(0, rows)},
                   epoch <= 10 ? 1e-3 : 1e-4);
      const Report& report = network.found.report;
      cost.error = std::max(cost.error, report.worst_residual());
      cost.steps += most_steps(report);
      cost.converged += report.converged_share() * double(rows.size(0)) / double(N);
      backward += most_steps(network.found.adjoint());
    }
    cost.milliseconds = 1e3 * (processor_seconds() - begin);
    cost.steps /= batches;
    at::NoGradGuard no_tape;
    const double wrong =
        network.logits(test.x).argmax(1).ne(test.y).to(at::kDouble).mean().item<double>();
    cost.note = fmt::format("{:.1f} steps backward; {:.2f}% of the test wrong", backward / batches,
                            100 * wrong);
    costs.push_back(std::move(cost));
  }
}

std::vector<LayerCost> run(const LayersOptions& options) {
  const int64_t B = samples_of(options, kBatch);
  const bool real = !options.data.empty();
  const Examples examples =
      real ? read(options.data, "train")
           : Examples{at::randn({B, 1, kPixels}), at::arange(B, at::kLong).remainder(10)};
  std::vector<LayerCost> costs;
  for (const double tolerance : {1e-2, 1e-4}) costs.push_back(step(examples, tolerance, options));
  if (!real) return costs;
  const Examples test = read(options.data, "t10k");
  for (const double tolerance : {1e-2, 1e-4}) train(examples, test, tolerance, options, costs);
  return costs;
}

}  // namespace

std::vector<LayerWorkload> monotone_workloads() { return {{"mondeq", run}}; }

}  // namespace deq
