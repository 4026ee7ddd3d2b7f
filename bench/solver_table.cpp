// Evaluations that each solver and scope needs on a trained DEQ-Transformer, and how much it leaks.
//   solver_table WEIGHTS.safetensors [LENGTH BATCH SEGMENTS]
// WEIGHTS has the published parameter names, a `config` in its metadata and `tokens`. Prints one
// JSON object per row: evaluations until every sample's relative residual is below 1e-3, 1e-4, 1e-5
// (mean over segments; null when some sample never got there), and by position the mean and the
// slowest; and for the leak, how far earlier positions of the result move (largest, relative to the
// state's norm) when only the last token of the segment changes.
#include <ATen/ATen.h>
#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "deq/files/safetensors.h"
#include "deq/models/language_model.h"
#include "deq/models/published.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "deq/solvers/picard.h"

namespace {

using at::Tensor;
using Json = nlohmann::ordered_json;

struct Setting {
  std::string name;
  deq::Solver solver;
};

std::vector<Setting> settings() {
  using deq::Anderson;
  using deq::Broyden;
  using deq::Picard;
  using deq::Scope;
  std::vector<Setting> all;
  for (const Scope scope : {Scope::Sample, Scope::Position}) {
    const std::string suffix = std::string(", ") + deq::Names<Scope>::values[size_t(scope)];
    all.push_back({"picard" + suffix, Picard{.scope = scope}});
    all.push_back({"broyden 30" + suffix, Broyden{.memory = 30, .scope = scope}});
    all.push_back({"broyden 8" + suffix, Broyden{.memory = 8, .scope = scope}});
    all.push_back({"anderson 6" + suffix, Anderson{.memory = 6, .scope = scope}});
    all.push_back({"anderson 8" + suffix, Anderson{.memory = 8, .scope = scope}});
  }
  for (const int64_t memory : {6, 8, 12}) {
    for (const double ridge : {1e-6, 1e-4, 1e-3, 1e-2}) {
      for (const double decay : {0.5, 0.9, 0.95, 1.0}) {
        if (memory != 8 && (ridge != 1e-3 || decay == 0.5)) continue;
        all.push_back(
            {fmt::format("anderson {}, causal, ridge {:g}, decay {:g}", memory, ridge, decay),
             Anderson{.memory = memory, .ridge = ridge, .scope = Scope::Causal, .decay = decay}});
      }
    }
  }
  return all;
}

class Bench {
 public:
  Bench(const deq::TensorFile& file, int64_t length, int64_t batch, int64_t segments)
      : config_(Json::parse(file.metadata.at("config"))),
        model_(deq::published_options(file.metadata.at("config")),
               config_.at("vocab").get<int64_t>()) {
    std::map<std::string, Tensor> weights;
    for (const auto& [name, tensor] : file.tensors) {
      if (name.rfind("weight.", 0) == 0) weights[name.substr(7)] = tensor;
    }
    deq::load_published(model_, weights);
    model_.eval();
    const Tensor tokens = file.tensors.at("tokens");
    const int64_t lane = tokens.numel() / batch;
    deq::Histories histories;
    deq::ForwardOptions how;
    how.history = length;
    how.equilibrium.solver = deq::Anderson{.memory = 8, .ridge = 1e-3, .scope = deq::Scope::Causal};
    how.equilibrium.stop = {.max_steps = 100, .rel_tol = 1e-5};
    for (int64_t s = 0; s < segments; ++s) {
      const Tensor part = tokens.narrow(0, 0, lane * batch)
                              .view({batch, lane})
                              .narrow(1, s * length, length)
                              .contiguous();
      parts_.push_back({part, histories});
      histories = model_.forward(part, histories, how).histories;
    }
    parts_.erase(parts_.begin());  // the first has no history
  }

  Json run(const Setting& setting) {
    Json row{{"solver", setting.name}};
    for (const double tolerance : {1e-3, 1e-4, 1e-5}) {
      double evaluations = 0;
      bool reached = true;
      for (const auto& [tokens, histories] : parts_) {
        const int64_t count = evaluations_to(setting.solver, tokens, histories, tolerance);
        reached &= count > 0;
        evaluations += double(count);
      }
      const std::string key = fmt::format("to_{:g}", tolerance);
      row[key] = reached ? Json(evaluations / double(parts_.size())) : Json();
    }
    for (const double tolerance : {1e-1, 1e-2, 1e-3})
      row[fmt::format("leak_{:g}", tolerance)] = leak(setting, tolerance);
    return row;
  }

 private:
  struct Part {
    Tensor tokens;
    deq::Histories histories;
  };

  deq::Solution solve(const deq::Solver& solver, const Tensor& tokens,
                      const deq::Histories& histories, const deq::StopRule& stop) {
    c10::NoGradGuard no_tape;
    const deq::Map f = model_.bind(tokens, histories).front().f;
    const Tensor z0 = at::zeros({tokens.size(0), tokens.size(1), model_.cell().state_width()});
    return deq::solve(f, z0, solver, stop);
  }

  /// Evaluations until the residual of every whole sample is below `tolerance`, whatever the scope;
  /// 0: never.
  int64_t evaluations_to(const deq::Solver& solver, const Tensor& tokens,
                         const deq::Histories& histories, double tolerance) {
    c10::NoGradGuard no_tape;
    const deq::Map f = model_.bind(tokens, histories).front().f;
    int64_t calls = 0, reached = 0;
    const deq::Map counted = [&](const Tensor& z) {
      const Tensor fz = f(z);
      ++calls;
      const Tensor residual = (fz - z).flatten(1).norm(2, {1}) / fz.flatten(1).norm(2, {1});
      if (!reached && residual.max().item<double>() < tolerance) reached = calls;
      return reached ? z.clone() : fz;  // a fixed point of the counted map: the solve ends
    };
    const Tensor z0 = at::zeros({tokens.size(0), tokens.size(1), model_.cell().state_width()});
    deq::solve(counted, z0, solver, {.max_steps = 100, .rel_tol = 1e-9});
    return reached;
  }

  double leak(const Setting& setting, double tolerance) {
    const auto& [tokens, histories] = parts_[0];
    Tensor changed = tokens.clone();
    changed.select(1, tokens.size(1) - 1).add_(17).remainder_(model_.vocabulary());
    const deq::StopRule stop{.max_steps = 100, .rel_tol = tolerance};
    const Tensor a = solve(setting.solver, tokens, histories, stop).z;
    const Tensor b = solve(setting.solver, changed, histories, stop).z;
    const int64_t earlier = tokens.size(1) - 1;
    return ((a - b).narrow(1, 0, earlier).norm(2, {2}) / a.narrow(1, 0, earlier).norm(2, {2}))
        .max()
        .item<double>();
  }

  Json config_;
  deq::LanguageModel model_;
  std::vector<Part> parts_;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2 && argc != 5) {
    fmt::print(stderr, "usage: solver_table WEIGHTS.safetensors [LENGTH BATCH SEGMENTS]\n");
    return 2;
  }
  const auto number = [&](int i, int64_t standard) {
    return argc == 5 ? std::stoll(argv[i]) : standard;
  };
  Bench bench(deq::load_tensors(argv[1]), number(2, 64), number(3, 8), number(4, 3));
  for (const Setting& setting : settings()) fmt::print("{}\n", bench.run(setting).dump());
}
