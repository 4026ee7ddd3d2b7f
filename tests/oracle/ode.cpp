#include "tests/oracle/ode.h"

#include <ATen/ATen.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "deq/files/safetensors.h"
#include "deq/layers/ode.h"

namespace deq::testing {
namespace {

using at::Tensor;
using Json = nlohmann::json;
using Named = std::map<std::string, Tensor>;

struct Case {
  std::string name, kind;
  Json config;
  Named tensors;

  const Tensor& at(const std::string& key) const {
    const auto found = tensors.find(key);
    DEQ_CHECK(found != tensors.end(), "{}: tensor '{}' is missing", name, key);
    return found->second;
  }
};

/// f of a kind, of parameters that may need gradients.
OdeFunction equation(const std::string& kind, const Named& p) {
  if (kind == "ode-linear") {
    return [A = p.at("A")](const Tensor&, const Tensor& y) { return y.matmul(A.t()); };
  }
  if (kind == "ode-spiral") {
    return [A = p.at("A")](const Tensor&, const Tensor& y) { return y.pow(3).matmul(A.t()); };
  }
  if (kind == "ode-forced") {
    return [k = p.at("k"), a = p.at("a"), w = p.at("w")](const Tensor& t, const Tensor& y) {
      return -k * y + a * at::sin(w * t.unsqueeze(1));
    };
  }
  if (kind == "ode-neural") {
    return [W1 = p.at("W1"), b1 = p.at("b1"), W2 = p.at("W2"), b2 = p.at("b2")](const Tensor&,
                                                                                const Tensor& y) {
      return at::tanh(y.pow(3).matmul(W1.t()) + b1).matmul(W2.t()) + b2;
    };
  }
  if (kind == "ode-van-der-pol") {
    return [mu = p.at("mu")](const Tensor&, const Tensor& y, const Tensor& rows) {
      const Tensor a = y.select(1, 0), b = y.select(1, 1);
      return at::stack({b, mu.index_select(0, rows) * (1 - a * a) * b - a}, 1);
    };
  }
  DEQ_CHECK(kind == "ode-robertson", "kind {} is not known", kind);
  return [k = p.at("k")](const Tensor&, const Tensor& y) {
    const Tensor a = y.select(1, 0), b = y.select(1, 1), c = y.select(1, 2);
    const Tensor first = k[0] * a - k[2] * b * c, second = k[1] * b * b;
    return at::stack({-first, first - second, second}, 1);
  };
}

double error_of(const Tensor& ours, const Tensor& theirs) {
  const double largest = theirs.abs().max().item<double>();
  return ((ours.reshape(theirs.sizes()) - theirs).abs().max() / (largest + 1e-300)).item<double>();
}

class Verdict {
 public:
  void see(const std::string& what, double error, double allowed) {
    if (error <= allowed) {
      worst_ = std::max(worst_, error / allowed);
      return;
    }
    text_ += fmt::format("  {} {:.1e} > {:.1e}", what, error, allowed);
  }
  void require(const std::string& what, bool holds) {
    if (!holds) text_ += "  " + what;
  }
  bool report(const std::string& name, const std::string& how) const {
    const bool ok = text_.empty();
    fmt::print("{} {}  {}  at most {:.2g} of what is allowed{}\n", ok ? "ok    " : "FAILED", name,
               how, worst_, text_);
    return ok;
  }

 private:
  std::string text_;
  double worst_ = 0;
};

void check_solution(const Case& c, const OdeOptions& options, Verdict& verdict) {
  Named leaves{{"y0", c.at("in.y0").clone()}, {"t", c.at("in.t").clone()}}, parameters;
  for (const auto& [key, tensor] : c.tensors) {
    if (key.rfind("param.", 0) == 0) leaves[key.substr(6)] = tensor.clone();
  }
  std::vector<Tensor> inputs;
  std::vector<std::string> names;
  for (auto& [name, leaf] : leaves) {
    leaf.requires_grad_(true);
    inputs.push_back(leaf);
    names.push_back(name);
  }
  const std::string how = fmt::format("{:.0e}", options.rel_tol);
  const Trajectory found =
      integrate(equation(c.kind, leaves), leaves.at("y0"), leaves.at("t"), options);
  verdict.require(how + ": " + describe(found.report), found.report.converged());
  verdict.see(how + " y", error_of(found.y.detach(), c.at("out.y")), 100 * options.rel_tol);
  const auto gradients = torch::autograd::grad({found.y}, inputs, {c.at("in.grad_y")}, {}, false,
                                               /*allow_unused=*/true);
  for (size_t i = 0; i < names.size(); ++i) {
    const auto wanted = c.tensors.find("out.grad." + names[i]);
    if (wanted == c.tensors.end()) continue;
    verdict.require(how + ": no gradient for " + names[i], gradients[i].defined());
    if (gradients[i].defined())
      verdict.see(how + " grad." + names[i], error_of(gradients[i], wanted->second),
                  1000 * options.rel_tol);
  }
}

OdeOptions options_for(const Case& c, double rel_tol) {
  OdeOptions options{.rel_tol = rel_tol, .abs_tol = 0.01 * rel_tol, .max_steps = 200000};
  if (c.kind == "ode-robertson")
    options.abs_tols = rel_tol * at::tensor({1e-2, 1e-7, 1e-2}, at::kDouble);
  return options;
}

bool stiff(const Case& c) {
  return c.kind == "ode-robertson" ||
         (c.kind == "ode-van-der-pol" && c.at("param.mu").max().item<double>() > 50);
}

bool check_equation(const Case& c) {
  bool ok = true;
  const auto run = [&](const std::string& how, const OdeOptions& options) {
    Verdict verdict;
    check_solution(c, options, verdict);
    ok &= verdict.report(c.name, how);
  };
  const auto at = [&](double rel_tol, OdeMethod method, OdeGradient gradient) {
    OdeOptions options = options_for(c, rel_tol);
    options.method = method;
    options.gradient = gradient;
    return options;
  };
  const OdeMethod method = stiff(c) ? OdeMethod(Rodas5P{}) : OdeMethod(Tsit5{});
  for (const double rel_tol : {1e-4, 1e-6, 1e-8, 1e-10})
    run(fmt::format("{:.0e}", rel_tol), at(rel_tol, method, Checkpointed{}));
  run("unrolled", at(1e-6, method, Unrolled{}));
  // Several runs are dear where there are many steps, and Backsolve is not to be had where the
  // equation solved backwards is unstable.
  if (stiff(c) || c.kind == "ode-van-der-pol") return ok;
  run("kvaerno5", at(1e-7, Kvaerno5{}, Checkpointed{}));
  run("rodas5p", at(1e-7, Rodas5P{}, Checkpointed{}));
  run("dopri5", at(1e-8, Dopri5{}, Checkpointed{}));
  run("dopri8", at(1e-10, Dopri8{}, Checkpointed{}));
  run("bosh3", at(1e-6, Bosh3{}, Checkpointed{}));
  run("interpolated", at(1e-7, method, Interpolated{}));
  run("reversible", at(1e-8, Tsit5{}, Reversible{}));
  if (c.kind != "ode-spiral") run("backsolve", at(1e-8, Tsit5{}, Backsolve{}));
  return ok;
}

bool check_bounces(const Case& c) {
  Verdict verdict;
  const int64_t bounces = c.config.at("bounces"), B = c.at("in.h0").size(0);
  std::vector<Tensor> inputs{c.at("in.h0").clone(), c.at("in.v0").clone(),
                             c.at("param.gravity").expand({B}).clone(),
                             c.at("param.restitution").expand({B}).clone()};
  for (Tensor& input : inputs) input.requires_grad_(true);
  const OdeFunction fall = [g = inputs[2]](const Tensor&, const Tensor& y, const Tensor& rows) {
    return at::stack({y.select(1, 1), -g.index_select(0, rows)}, 1);
  };
  OdeOptions options{.rel_tol = 1e-11, .abs_tol = 1e-13};
  options.event =
      OdeEvent([](const Tensor&, const Tensor& y) { return y.select(1, 0); }, Crossing::Falling);
  Tensor y = at::stack({inputs[0], inputs[1]}, 1), t = at::zeros({B}, at::kDouble);
  std::vector<Tensor> rows;
  for (int64_t i = 0; i < bounces; ++i) {
    const Trajectory flight = integrate(fall, y, at::stack({t, c.at("in.T")}), options);
    verdict.require("a bounce is missed", flight.report.converged());
    t = flight.event_time;
    rows.push_back(t);
    y = at::stack({flight.y[1].select(1, 0), -inputs[3] * flight.y[1].select(1, 1)}, 1);
  }
  const Trajectory flight = integrate(fall, y, at::stack({t, c.at("in.T")}), options);
  verdict.require("a bounce too many", flight.report.count(Reason::EventMissed) == B);
  const Tensor events = at::stack(rows, 1), end = flight.y[1];
  rows.push_back(end.select(1, 0));
  rows.push_back(end.select(1, 1));
  verdict.see("event times", error_of(events.detach(), c.at("out.event_times")), 1e-9);
  verdict.see("y", error_of(rows[size_t(bounces)].detach(), c.at("out.y_at_T")), 1e-9);
  verdict.see("v", error_of(rows.back().detach(), c.at("out.v_at_T")), 1e-9);
  for (size_t i = 0; i < rows.size(); ++i) {
    const auto gradients =
        torch::autograd::grad({rows[i].sum()}, inputs, {}, true, false, /*allow_unused=*/true);
    for (size_t j = 0; j < inputs.size(); ++j) {
      const Tensor wanted = c.at("out.jacobian").select(1, int64_t(i)).select(1, int64_t(j));
      const Tensor got = gradients[j].defined() ? gradients[j] : at::zeros_like(wanted);
      verdict.see(fmt::format("jacobian {} {}", i, j),
                  (got - wanted).abs().max().item<double>() /
                      c.at("out.jacobian").abs().max().item<double>(),
                  1e-8);
    }
  }
  return verdict.report(c.name, "events");
}

struct Trap {
  OdeFunction f;
  OdeFunction event = {};
};

/// The right-hand side of a trap, by its name.
std::optional<Trap> trap_of(const std::string& name) {
  const auto state = [](const Tensor&, const Tensor& y) { return y.select(1, 0); };
  const auto decay = [](const Tensor&, const Tensor& y) { return -y; };
  const auto time = [](const Tensor& t) { return t.unsqueeze(1); };
  if (name == "blow-up") return Trap{[](const Tensor&, const Tensor& y) { return y * y; }};
  if (name == "zero interval" || name == "backwards" || name == "tiny scale" ||
      name == "unsorted times")
    return Trap{decay};
  if (name == "constant")
    return Trap{[](const Tensor&, const Tensor& y) { return at::zeros_like(y); }};
  if (name == "event at the start")
    return Trap{[](const Tensor&, const Tensor& y) { return at::ones_like(y); }, state};
  if (name == "event at the end")
    return Trap{[](const Tensor&, const Tensor& y) { return -at::ones_like(y); }, state};
  if (name == "grazing event")
    return Trap{[=](const Tensor& t, const Tensor& y) { return 2 * (time(t) - 1) + 0 * y; }, state};
  if (name == "two events within a step")
    return Trap{
        [=](const Tensor& t, const Tensor& y) { return 10 * at::cos(10 * time(t)) + 0 * y; },
        [](const Tensor&, const Tensor& y) { return y.select(1, 0) - 0.9; }};
  if (name == "NaN right-hand side")
    return Trap{[=](const Tensor& t, const Tensor& y) {
      return at::where(time(t) > 0.5, at::full({}, std::nan(""), at::kDouble), at::ones_like(y));
    }};
  if (name == "jump in the right-hand side")
    return Trap{[=](const Tensor& t, const Tensor& y) {
      return at::where(time(t) < 1.0 / 3, at::ones_like(y), at::full_like(y, -2.0));
    }};
  return std::nullopt;
}

void check_trap(const Json& given, Verdict& verdict) {
  const std::string name = given.at("name");
  const auto trap = trap_of(name);
  if (!trap) return verdict.require("unknown trap " + name, false);
  Tensor y0 = at::tensor(given.at("y0").get<std::vector<double>>(), at::kDouble).unsqueeze(0);
  y0.requires_grad_(true);
  const Tensor t = at::tensor(given.at("t").get<std::vector<double>>(), at::kDouble);
  OdeOptions options{.rel_tol = 1e-9, .abs_tol = name == "tiny scale" ? 1e-32 : 1e-12};
  if (trap->event) options.event = trap->event;
  if (name == "unsorted times") {
    try {
      integrate(trap->f, y0, t, options);
      verdict.require(name + " were taken", false);
    } catch (const Error& error) {
      verdict.require(name, std::string(error.what()).find("sorted") != std::string::npos);
    }
    return;
  }
  const Trajectory found = integrate(trap->f, y0, t, options);
  const auto reason = Reason(found.report.reason[0].item<uint8_t>());
  const double end = found.y[-1][0][0].item<double>();
  const Tensor gradient = torch::autograd::grad({found.y[-1].sum()}, {y0}, {}, {}, false, true)[0];
  const double slope = gradient.defined() ? gradient.sum().item<double>() : 0;
  const double expected = given.at("expected").is_number() ? given.at("expected").get<double>() : 0;
  const auto is = [&](double value, double wanted, double tolerance) {
    verdict.see(name, std::abs(value - wanted) / std::max(std::abs(wanted), 1e-300), tolerance);
  };
  verdict.require(name + ": not finite", std::isfinite(end) && std::isfinite(slope));
  if (name == "blow-up") {
    verdict.require(name, reason == Reason::StepUnderflow || reason == Reason::NonFinite);
    verdict.require(name + ": gradient", slope == 0);
    is(found.reached[0].item<double>(), 1, 1e-6);
  } else if (name == "NaN right-hand side") {
    verdict.require(name, reason == Reason::NonFinite && slope == 0);
    is(found.reached[0].item<double>(), 0.5, 1e-6);
  } else if (name == "event at the start") {
    verdict.require(name, reason == Reason::EventMissed);
  } else if (name == "event at the end") {
    is(found.event_time[0].item<double>(), 1, 1e-14);
  } else if (name == "grazing event") {
    verdict.require(name, reason == Reason::NotUnique || reason == Reason::EventMissed);
  } else if (name == "two events within a step") {
    is(found.event_time[0].item<double>(), expected, 1e-7);
  } else {
    verdict.require(name + ": " + describe(found.report), reason == Reason::Converged);
    is(end, name == "zero interval" ? 1 : expected, 1e-7);
    if (name == "zero interval") is(slope, 1, 0);
  }
}

bool check_traps(const Case& c) {
  Verdict verdict;
  for (const Json& given : c.config.at("cases")) check_trap(given, verdict);
  return verdict.report(c.name, "traps");
}

bool check_case(const Case& c) {
  if (c.kind == "ode-traps") return check_traps(c);
  if (c.kind == "ode-events") return check_bounces(c);
  return check_equation(c);
}

}  // namespace

bool is_ode(const std::string& kind) { return kind.rfind("ode-", 0) == 0; }

bool check_ode(const std::filesystem::path& path) {
  TensorFile file = load_tensors(path);
  return check_case({path.stem().string(), file.metadata["kind"],
                     Json::parse(file.metadata.at("config")), std::move(file.tensors)});
}

}  // namespace deq::testing
