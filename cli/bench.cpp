// `deq bench RUN`: where the time of a training step and of a new token goes, as one JSON object.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/parse.h"
#include "cli/scores.h"
#include "cli/threads.h"
#include "deq/base/device.h"
#include "deq/base/memory_meter.h"
#include "deq/decode/generator.h"
#include "deq/measure/measurement.h"
#include "deq/models/language_model.h"
#include "deq/runs/run.h"

namespace deq::cli {
namespace {

struct BenchOptions {
  int64_t length = 0;
  int64_t batch = 0;
  int64_t runs = 5;
  int64_t decode = 0;
  int64_t seed = 1;
  ReadingOptions reading;
  EquilibriumOptions equilibrium;

  static void fields(auto& self, auto&& field) {
    field("length", self.length, "positions of the segment and of its history; 0: the run's",
          between(0, 1 << 24));
    field("batch", self.batch, "segments side by side; 0: the run's", between(0, 1 << 20));
    field("runs", self.runs, "each number is the median of so many", between(1, 1000));
    field("decode", self.decode, "also time a new token after so many; 0: no", between(0, 1 << 24));
    field("seed", self.seed,
          "of dropout masks, and of the tokens that are made up where there is no --data",
          at_least(0));
    field("", self.reading);
    field("", self.equilibrium);
  }
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

/// Median seconds of `runs` calls, after one that warms up.
double median_seconds(int64_t runs, at::Device device, const std::function<void()>& work) {
  std::vector<double> seconds;
  for (int64_t run = -1; run < runs; ++run) {
    const double spent = seconds_of([&] {
      work();
      synchronize(device);
    });
    if (run >= 0) seconds.push_back(spent);
  }
  return median(seconds);
}

/// A segment and the one before it, (B, 2 T + 1) tokens.
at::Tensor tokens_of(const TrainedModel& run, const std::string& data,
                     const BenchOptions& options) {
  const int64_t B = options.batch, n = 2 * options.length + 1;
  if (data.empty()) {
    at::manual_seed(uint64_t(options.seed));
    return at::randint(run.model->symbols().inputs, {B, n}, at::kLong);
  }
  const at::Tensor text = load_tokens(data, run.vocabulary);
  DEQ_CHECK(text.size(0) >= B * n,
            "--data '{}' has {} tokens; expected {}, batch times (2 length + 1)", data,
            text.size(0), B * n);
  const int64_t lane = text.size(0) / B;
  return text.narrow(0, 0, B * lane).view({B, lane}).narrow(1, 0, n);
}

/// One training step without its optimiser, in its parts.
struct Step {
  double backward_seconds = 0, loss = 0;
  Report forward, adjoint;
};

class Bench {
 public:
  Bench(Model& model, const at::Tensor& tokens, const BenchOptions& options)
      : model_(model), options_(options) {
    const int64_t T = options.length;
    first_ = tokens.narrow(1, 0, T);
    second_ = tokens.narrow(1, T, T);
    targets_ = tokens.narrow(1, T + 1, T);
    how_.equilibrium = options.equilibrium;
    how_.history = T;
    solved_ = how_;
    solved_.equilibrium = for_evaluation(options.equilibrium);
    model.train();
    at::manual_seed(uint64_t(options.seed));  // of the masks
    c10::NoGradGuard no_tape;
    histories_ = model.forward(first_, {}, solved_).histories;
  }

  double evaluation_seconds() {
    c10::NoGradGuard no_tape;
    const at::Tensor z = model_.forward(second_, histories_, solved_).z;
    const Bound f = model_.bind(second_, histories_).front();
    return median_seconds(options_.runs, model_.device(),
                          [&] {
                            for (int repeat = 0; repeat < 5; ++repeat) f(z);
                          }) /
           5;
  }

  double forward_seconds() {
    c10::NoGradGuard no_tape;
    return median_seconds(options_.runs, model_.device(),
                          [&] { model_.forward(second_, histories_, solved_); });
  }

  /// Of step(), and of the backward part of it.
  std::pair<double, double> step_seconds() {
    std::vector<double> backward;
    const double whole = median_seconds(options_.runs, model_.device(), [&] {
      step_ = step();
      backward.push_back(step_.backward_seconds);
    });
    backward.erase(backward.begin());
    return {whole, median(backward)};
  }
  const Step& last_step() const { return step_; }

  /// Of tensors on the model's device, at the peak of a step.
  double step_megabytes() {
    const int64_t bytes = peak_tensor_bytes([&] { step(); }, model_.device().type());
    return double(bytes) / 1048576;
  }

  /// Of the next token after `n`, and of solving all n + 1 again.
  std::pair<double, double> decode_seconds(int64_t n) {
    at::manual_seed(uint64_t(options_.seed));
    const at::Tensor tokens = at::randint(model_.symbols().inputs, {n + 1}, at::kLong);
    const int64_t* ids = tokens.data_ptr<int64_t>();
    TextGenerator generator(language_model(model_), options_.equilibrium, n + options_.runs + 1);
    generator.feed({ids, ids + n});
    const double token =
        median_seconds(options_.runs, model_.device(), [&] { generator.feed({ids[n]}); });
    c10::NoGradGuard no_tape;
    const double again = median_seconds(std::min<int64_t>(options_.runs, 5), model_.device(), [&] {
      model_.forward(tokens.unsqueeze(0), {}, {solved_.equilibrium});
    });
    return {token, again};
  }

 private:
  Step step() {
    Step step;
    ForwardOptions how = how_;
    how.on_adjoint = [&](const Report& report) { step.adjoint = report; };
    model_.zero_grad();
    const LayerOutput output = model_.forward(second_, histories_, how);
    const at::Tensor loss = model_.loss(output.z, targets_).mean();
    step.loss = loss.item<double>();
    step.backward_seconds = seconds_of([&] {
      loss.backward();
      synchronize(model_.device());
    });
    step.forward = output.report;
    return step;
  }

  Model& model_;
  BenchOptions options_;
  ForwardOptions how_, solved_;  // in a training step; without a gradient
  at::Tensor first_, second_, targets_;
  Histories histories_;
  Step step_;
};

/// Rate of the product of two square matrices of 1024 floats, what this machine can do.
double product_gflops(int64_t runs, at::Device device) {
  const at::Tensor a = at::rand({1024, 1024}, device), b = at::rand({1024, 1024}, device);
  at::Tensor c = at::empty({1024, 1024}, device);
  return 2 * std::pow(1024.0, 3) /
         median_seconds(std::max<int64_t>(runs, 9), device, [&] { at::mm_out(c, a, b); }) / 1e9;
}

nlohmann::ordered_json number(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value) : nullptr;
}

}  // namespace

int bench(int argc, char** argv) {
  CLI::App app(
      "Times a training step (without its optimiser) on one segment behind one of history, and its "
      "parts. Prints one JSON object; medians, seconds.",
      "deq bench");
  std::string folder, data, checkpoint, device = "cpu";
  int64_t threads = 0;
  Assignments flags;
  app.add_option("RUN", folder, "run folder")->required();
  app.add_option("--data", data, "a text file to take the tokens from; none: they are made up");
  app.add_option("--checkpoint", checkpoint, "best or last [best]");
  app.add_option("--threads", threads, "threads; 0: all cores")->check(CLI::Range(0, 4096));
  app.add_option("--device", device, "cpu, cuda or cuda:N [cpu]");
  add_options(app, BenchOptions{}, flags, Defaults::Hidden);
  app.footer("Defaults are those of the run.");
  if (const auto code = parse(app, argc, argv)) return *code;
  use_threads(threads);

  TrainedModel run = load_run(folder, checkpoint, device);
  check_iterates(run);
  BenchOptions options;
  options.equilibrium = run.options.equilibrium;
  assign_options(options, flags);
  settle(options.equilibrium, run.options.model, flags);
  run.model->read_weights(options.reading);
  DEQ_CHECK(options.decode > 0 || run.model->weight_type() == WeightType::Exact,
            "weight-type = bfloat16: training reads exact weights; expected --decode with it");
  if (options.length == 0) options.length = run.options.loop.batch.length;
  if (options.batch == 0) options.batch = run.options.loop.batch.batch;

  Bench bench(*run.model, tokens_of(run, data, options), options);
  nlohmann::ordered_json row;
  const double evaluation = bench.evaluation_seconds();
  row["evaluation_s"] = evaluation;
  row["forward_s"] = bench.forward_seconds();
  const auto [step, backward] = bench.step_seconds();
  row["backward_s"] = backward;
  row["step_s"] = step;
  const Step& last = bench.last_step();
  row["forward_evaluations"] = last.forward.evaluations;
  row["backward_evaluations"] = last.adjoint.evaluations;
  row["forward_residual"] = number(last.forward.mean_residual());
  row["backward_residual"] = number(last.adjoint.mean_residual());
  row["forward_converged"] = last.forward.converged_share();
  row["backward_converged"] = last.adjoint.converged_share();
  row["loss"] = number(last.loss);
  row["product_gflops"] = product_gflops(options.runs, run.model->device());
  row["evaluation_gflops"] =
      number(run.model->cell().operations(options.batch, options.length, options.length) /
             evaluation / 1e9);
  row["peak_mb"] = peak_process_megabytes();
  if (run.model->device().is_cuda()) row["device_peak_mb"] = bench.step_megabytes();
  row["threads"] = at::get_num_threads();
  if (options.decode > 0) {
    const auto [token, again] = bench.decode_seconds(options.decode);
    row["decode_s_per_token"] = token;
    row["resolve_s_per_token"] = again;
    row["weight_type"] = weight_type_name(*run.model);
  }
  fmt::print("{}\n", row.dump());
  return 0;
}

}  // namespace deq::cli
