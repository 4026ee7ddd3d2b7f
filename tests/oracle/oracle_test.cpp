// Checks every case of the folder DEQ_ORACLE_DIR against the published code's outputs, in double:
// f, the equilibrium, the loss of every token, and every gradient. Prints the worst error of each.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/files/safetensors.h"
#include "deq/gradients/implicit.h"
#include "deq/models/published.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "tests/oracle/contact.h"
#include "tests/oracle/equilibria.h"
#include "tests/oracle/maxsat_cases.h"
#include "tests/oracle/ode.h"
#include "tests/oracle/quadratic.h"

namespace {

using at::Tensor;
using Json = nlohmann::json;
constexpr double kFTolerance = 1e-10;  // relative, by norm

/// What the cases' own residuals can certify.
struct Tolerances {
  double equilibrium, loss, gradient;
};
constexpr Tolerances kTransformer{1e-6, 1e-6, 1e-6};
constexpr Tolerances kTrellisNet{1e-8, 1e-8, 1e-8};

double relative_error(const Tensor& ours, const Tensor& theirs) {
  return ((ours - theirs.view(ours.sizes())).norm() / (theirs.norm() + 1e-30)).item<double>();
}

struct Case {
  std::string name;
  Json config;
  std::map<std::string, Tensor> tensors;

  const Tensor& at(const std::string& key) const {
    const auto found = tensors.find(key);
    DEQ_CHECK(found != tensors.end(), "{}: tensor '{}' is missing", name, key);
    return found->second;
  }
  std::map<std::string, Tensor> with_prefix(const std::string& prefix) const {
    std::map<std::string, Tensor> out;
    for (const auto& [key, tensor] : tensors) {
      if (key.rfind(prefix, 0) == 0) out[key.substr(prefix.size())] = tensor;
    }
    return out;
  }
};

class Worst {
 public:
  void see(const std::string& quantity, double error, double tolerance) {
    double& worst = errors_[quantity];
    if (!(error <= worst)) worst = error;
    failed_ |= !(error <= tolerance);
  }
  bool report(const std::string& name) const {
    fmt::print("{} {}", failed_ ? "FAILED" : "ok    ", name);
    for (const auto& [quantity, error] : errors_) fmt::print("  {} {:.1e}", quantity, error);
    fmt::print("\n");
    return !failed_;
  }

 private:
  std::map<std::string, double> errors_;
  bool failed_ = false;
};

void check_gradients(const Case& c, const std::string& segment, deq::LanguageModel& model,
                     double tolerance, Worst& worst) {
  // Published names that map to one parameter of ours have their gradients summed.
  const auto names = deq::published_names(model);
  std::map<std::string, Tensor> expected;
  for (const auto& [published, gradient] : c.with_prefix("out." + segment + ".grad.")) {
    const auto own = names.find(published);
    DEQ_CHECK(own != names.end(), "{}: gradient of unknown '{}'", c.name, published);
    Tensor& sum = expected[own->second];
    sum = sum.defined() ? sum + gradient : gradient;
  }
  for (const auto& item : model.named_parameters()) {
    const auto found = expected.find(item.key());
    DEQ_CHECK(found != expected.end(), "{}: no gradient for {}", c.name, item.key());
    const Tensor& ours = item.value().grad();
    const double scale = found->second.norm().item<double>();
    if (!ours.defined()) {
      worst.see("gradient", scale, 0);
      continue;
    }
    worst.see("gradient", relative_error(ours, found->second), tolerance);
  }
}

deq::ForwardOptions exact(int64_t history) {
  deq::ForwardOptions how;
  how.history = history;
  how.equilibrium.solver = deq::Broyden{.memory = 100};
  how.equilibrium.stop = {.max_steps = 400, .rel_tol = 1e-12};
  how.equilibrium.gradient = deq::Implicit{.solver = deq::Broyden{.memory = 100},
                                           .stop = {.max_steps = 400, .rel_tol = 1e-12}};
  return how;
}

/// What the next segment of a case sees: the published equilibrium, so that errors do not add up.
void take_published_history(const Case& c, const Tensor& equilibrium, deq::History& history) {
  if (c.config.at("kind") == "deq-trellisnet") {
    // There the convolution of the input starts anew with each segment.
    history = {equilibrium.narrow(1, equilibrium.size(1) - 1, 1), {}};
    return;
  }
  const int64_t kept = std::min(c.config.at("memory").get<int64_t>(), equilibrium.size(1));
  const int64_t longer = history.length() - kept;
  history.z = equilibrium.narrow(1, equilibrium.size(1) - kept, kept);
  if (longer > 0) history.x = history.x.narrow(1, longer, kept);
}

/// The published code rounds scores to float; to 1e-10 only the same rounding gives the same f.
Tensor published_f(deq::LanguageModel& model, const Tensor& tokens, const deq::Histories& histories,
                   const Tensor& z) {
  auto* transformer = dynamic_cast<deq::TransformerCell*>(&model.cell());
  if (transformer) transformer->round_scores(true);
  const Tensor f = model.bind(tokens, histories).front()(z);
  if (transformer) transformer->round_scores(false);
  return f;
}

bool check(const Case& c, const Tolerances& tolerances) {
  deq::LanguageModel model(deq::published_options(c.config.dump()), c.config.at("vocab"));
  model.to(at::kDouble);
  deq::load_published(model, c.with_prefix("weight."));
  // It takes the last token for padding, by an index of -1.
  if (c.config.at("kind") == "deq-trellisnet") model.embedding().hold_row(model.vocabulary() - 1);
  deq::ForwardOptions how = exact(c.config.value("memory", int64_t(1)));
  Worst worst;
  how.on_adjoint = [&](const deq::Report& report) {
    worst.see("adjoint residual", report.worst_residual(), 1e-9);
  };
  deq::Histories histories;
  for (int segment = 0; c.tensors.count(fmt::format("in.{}.tokens", segment)); ++segment) {
    const std::string s = std::to_string(segment);
    const Tensor tokens = c.at("in." + s + ".tokens"), targets = c.at("in." + s + ".targets");
    const Tensor f = published_f(model, tokens, histories, c.at("in." + s + ".z"));
    worst.see("f", relative_error(f, c.at("out." + s + ".f")), kFTolerance);
    const deq::LayerOutput found = model.forward(tokens, histories, how);
    worst.see("residual", found.report.worst_residual(), 1e-9);
    const Tensor& published = c.at("out." + s + ".equilibrium");
    worst.see("equilibrium", relative_error(found.z, published), tolerances.equilibrium);
    const Tensor loss = model.loss(found.z, targets);
    worst.see("loss", relative_error(loss, c.at("out." + s + ".loss")), tolerances.loss);
    model.zero_grad();
    loss.mean().backward();
    check_gradients(c, s, model, tolerances.gradient, worst);
    histories = found.histories;
    take_published_history(c, published, histories.front());
  }
  return worst.report(c.name);
}

Case load_case(const std::filesystem::path& path) {
  deq::TensorFile file = deq::load_tensors(path);
  const auto config = file.metadata.find("config");
  DEQ_CHECK(config != file.metadata.end(), "{}: metadata key 'config' is missing", path.string());
  return {path.filename().string(), Json::parse(config->second), std::move(file.tensors)};
}

std::vector<std::filesystem::path> cases_in(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> paths;
  if (!std::filesystem::exists(folder)) return paths;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") paths.push_back(entry.path());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

/// A layer that is defined by a condition: its kinds, and what checks a case of them.
struct Layer {
  bool (*knows)(const std::string& kind);
  bool (*check)(const std::filesystem::path& path);
};
constexpr Layer kLayers[] = {
    {deq::testing::is_contact, deq::testing::check_contact},
    {deq::testing::is_equilibrium, deq::testing::check_equilibrium},
    {deq::testing::is_maxsat, deq::testing::check_maxsat},
    {deq::testing::is_ode, deq::testing::check_ode},
    {deq::testing::is_quadratic_program, deq::testing::check_quadratic_program},
};

}  // namespace

int main() {
  const char* folder = std::getenv("DEQ_ORACLE_DIR");
  if (!folder) {
    fmt::print("skipped: DEQ_ORACLE_DIR is not set\n0 passed, 0 failed, 1 skipped\n");
    return 0;
  }
  const std::vector<std::filesystem::path> paths = cases_in(folder);
  int passed = 0, failed = 0, skipped = 0;
  for (const auto& path : paths) {
    try {
      const Case c = load_case(path);
      if (c.config.at("kind") == "deq-transformer") {
        check(c, kTransformer) ? ++passed : ++failed;
      } else if (c.config.at("kind") == "deq-trellisnet") {
        check(c, kTrellisNet) ? ++passed : ++failed;
      } else {
        fmt::print("skipped {}  kind {} is not known yet\n", c.name, c.config.at("kind").dump());
        ++skipped;
      }
    } catch (const std::exception& error) {
      fmt::print("FAILED {}  {}\n", path.filename().string(), error.what());
      ++failed;
    }
  }
  for (const auto& path : cases_in(std::filesystem::path(folder) / "implicit")) {
    try {
      const std::string kind = deq::load_tensors(path).metadata["kind"];
      const auto* const layer = std::find_if(std::begin(kLayers), std::end(kLayers),
                                             [&](const Layer& each) { return each.knows(kind); });
      if (layer == std::end(kLayers)) {
        fmt::print("skipped {}  kind {} is not known yet\n", path.stem().string(), kind);
        ++skipped;
      } else {
        layer->check(path) ? ++passed : ++failed;
      }
    } catch (const std::exception& error) {
      fmt::print("FAILED {}  {}\n", path.filename().string(), error.what());
      ++failed;
    }
  }
  fmt::print("{} passed, {} failed, {} skipped\n", passed, failed, skipped);
  return failed || passed + skipped == 0 ? 1 : 0;
}
