// Every option of every solver does something, and is checked. Generic over their fields().
#include <gtest/gtest.h>

#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "deq/solvers/picard.h"
#include "tests/base/scratch.h"
#include "tests/problems.h"
#include "tests/suites/solver_cases.h"

namespace deq {
namespace {

using at::Tensor;
using namespace testing;

struct Options {
  Solver solver;
  StopRule stop;
  static void fields(auto& self, auto&& field) {
    field("solver", self.solver);
    field("", self.stop);
  }
};

/// Everything that a caller can see of a solve.
std::string fingerprint(const Options& options) {
  Counted counted(causal(2, 5, 4, at::kDouble).f);
  const Solution s =
      solve(counted.map, at::zeros({2, 5, 4}, at::kDouble), options.solver, options.stop);
  return fmt::format("{} {} {:.17g} {:.17g}", counted.calls, s.report.reason.numel(),
                     s.z.norm().item<double>(), s.report.residual.norm().item<double>());
}

/// Another value of the option that its range allows, as text.
std::vector<std::string> others(const OptionInfo& info) {
  std::vector<std::string> values = info.choices;
  if (info.type == "bool") values = {"true", "false"};
  if (info.type == "int") values = {"1", "2", "3"};
  if (info.type == "float") values = {"0.5", "0.25", "1", "0"};
  std::erase(values, info.value);
  return values;
}

bool changes_something(const Solver& solver, const OptionInfo& info) {
  for (const Scope scope : {Scope::Sample, Scope::Position, Scope::Causal, Scope::Whole}) {
    if (!has_scope(solver, scope)) continue;
    const Options base{with_scope(solver, scope), {.max_steps = 25, .rel_tol = 1e-12}};
    for (const std::string& value : others(info)) {
      Options changed = base;
      try {
        assign_options(changed, {{info.key, value}});
      } catch (const Error&) {
        continue;  // out of its range
      }
      if (info.key.ends_with("_scope") && !has_scope(changed.solver, scope_of(changed.solver))) {
        continue;
      }
      if (fingerprint(changed) != fingerprint(base)) return true;
    }
  }
  return false;
}

TEST(SolverOptions, EveryOptionChangesTheSolve) {
  for (const Solver& solver : every_solver()) {
    for (const OptionInfo& info : selected_options(Options{solver, {}})) {
      EXPECT_TRUE(changes_something(solver, info)) << name_of(solver) << ": " << info.key;
    }
  }
}

/// Puts one numeric option after the other just outside its range, and asks `check` each time.
struct OutOfRange : detail::Leaf {
  std::function<void(const std::string&)> check;

  explicit OutOfRange(std::function<void(const std::string&)> check) : check(std::move(check)) {}
  void scalar(const std::string& key, detail::Scalar value, const char*,
              const Range& range) override {
    std::visit(
        [&]<class T>(T* place) {
          if constexpr (std::is_same_v<T, double> || std::is_same_v<T, int64_t>) {
            const T kept = *place;
            EXPECT_TRUE(std::isfinite(range.low)) << key << " has no lower bound";
            std::vector<double> bad{range.low - 1};
            if (range.low_open) bad.push_back(range.low);
            if (std::isfinite(range.high)) bad.push_back(range.high + (range.high_open ? 0 : 1));
            if (std::is_same_v<T, double>) bad.push_back(NAN);
            for (const double outside : bad) {
              *place = T(outside);
              check(key);
            }
            *place = kept;
          }
        },
        value);
  }
  void enumeration(const std::string&, size_t&, const std::vector<std::string>&,
                   const char*) override {}
  void choice(const std::string&, detail::Alternatives&, const char*) override {}
};

TEST(SolverOptions, ValuesOutOfRangeAreErrorsThatNameTheOption) {
  const Problem problem = contraction({2, 3}, at::kDouble);
  for (Solver solver : every_solver()) {
    OutOfRange each([&](const std::string& name) {
      const std::string message = error_of([&] { solve(problem.f, problem.z0, solver); });
      EXPECT_SAYS(message, name_of(solver) + "." + name);
      EXPECT_SAYS(message, "expected");
    });
    detail::Walk walk(each, "");
    solver->walk(walk);
  }
  StopRule stop;
  OutOfRange each([&](const std::string& name) {
    EXPECT_SAYS(error_of([&] { solve(problem.f, problem.z0, Picard{}, stop); }),
                "StopRule." + name);
  });
  detail::Walk walk(each, "");
  StopRule::fields(stop, walk);
}

TEST(SolverOptions, ScopesThatASolverDoesNotHaveAreErrorsThatNameTheOthers) {
  const Problem problem = contraction({2, 3}, at::kDouble);
  const std::string message =
      error_of([&] { solve(problem.f, problem.z0, Broyden{.scope = Scope::Causal}); });
  EXPECT_SAYS(message, "royden.scope = causal");
  EXPECT_SAYS(message, "sample, position");
}

TEST(SolverOptions, EitherToleranceIsEnough) {
  const Problem problem = contraction({3, 4}, at::kDouble);
  for (const Solver& solver : every_solver()) {
    const auto run = [&](const StopRule& stop) {
      return solve(problem.f, problem.z0, solver, stop).report;
    };
    const Report relative = run({.max_steps = 100, .rel_tol = 1e-6});
    const Report absolute = run({.max_steps = 100, .rel_tol = 0, .abs_tol = 1e-2});
    const Report either = run({.max_steps = 100, .rel_tol = 1e-6, .abs_tol = 1e-2});
    EXPECT_TRUE(relative.converged());
    EXPECT_TRUE(absolute.converged());
    EXPECT_LT(absolute.evaluations, relative.evaluations);
    EXPECT_EQ(either.evaluations, absolute.evaluations);
    EXPECT_LE(relative.worst_residual(), 1e-6);
  }
}

}  // namespace
}  // namespace deq
