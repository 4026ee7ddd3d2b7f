// Anderson against plain iteration over random maps of many kinds: it is not beaten by much.
#include <gtest/gtest.h>

#include "deq/cells/transformer.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "deq/solvers/picard.h"
#include "tests/problems.h"
#include "tests/suites/solver_cases.h"

namespace deq {
namespace {

using at::Tensor;
using namespace testing;

constexpr int64_t kMost = 300;

struct RandomMap {
  std::string name;
  Map f;
  Tensor z0;
};

RandomMap linear(const std::string& name, const Tensor& m, uint64_t seed) {
  const Tensor b = randn({1, m.size(0)}, at::kDouble, seed);
  return {name, [=](const Tensor& z) { return at::matmul(z, m) + b; }, at::zeros_like(b)};
}

Tensor with_eigenvalues(const Tensor& values, uint64_t seed) {
  const int64_t n = values.size(0);
  const Tensor q = std::get<0>(at::linalg_qr(randn({n, n}, at::kDouble, seed)));
  return at::matmul(q * values, q.t());
}

Tensor rotations(int64_t n, double radius) {
  Tensor m = at::zeros({n, n}, at::kDouble);
  for (int64_t k = 0; k + 1 < n; k += 2) {
    const double angle = M_PI * double(k + 1) / double(n);
    m[k][k] = m[k + 1][k + 1] = radius * std::cos(angle);
    m[k][k + 1] = radius * std::sin(angle);
    m[k + 1][k] = -radius * std::sin(angle);
  }
  return m;
}

/// A fresh post-norm cell with causal attention: width 64, weights ~ N(0, std).
RandomMap post_norm(double std, uint64_t seed) {
  const int64_t T = 10, D = 64, H = 4;
  const auto weight = [=](int64_t from, int64_t to, uint64_t k) {
    return std * randn({from, to}, at::kDouble, 100 * seed + k);
  };
  const Tensor qkv = weight(D, 3 * D, 1), out = weight(D, D, 2), inner = weight(D, 256, 3),
               outer = weight(256, D, 4);
  const Tensor x =
      at::matmul(0.16 * randn({1, T, D}, at::kDouble, 100 * seed + 5), weight(D, 3 * D, 6));
  const Tensor hidden = at::ones({T, T}, at::kBool).triu(1);
  const auto norm = [=](const Tensor& y) { return at::layer_norm(y, {D}); };
  const Map f = [=](const Tensor& z) {
    const auto heads = [&](const Tensor& t) { return t.view({1, T, H, D / H}).transpose(1, 2); };
    const auto parts = (at::matmul(z, qkv) + x).chunk(3, 2);
    const Tensor scores =
        at::matmul(heads(parts[0]), heads(parts[1]).transpose(2, 3)) / std::sqrt(double(D / H));
    const Tensor share = at::softmax(scores.masked_fill(hidden, -INFINITY), 3);
    const Tensor read = at::matmul(share, heads(parts[2])).transpose(1, 2).reshape({1, T, D});
    const Tensor y = norm(z + at::matmul(read, out));
    return norm(y + at::matmul(at::relu(at::matmul(y, inner)), outer));
  };
  return {fmt::format("post-norm {} {}", std, seed), f, at::zeros({1, T, D}, at::kDouble)};
}

std::vector<RandomMap> random_maps() {
  std::vector<RandomMap> maps;
  for (const uint64_t seed : {1, 2, 3}) {
    for (const double radius : {0.5, 0.9, 0.97}) {
      const Tensor even = at::linspace(-radius, radius, 32, at::kDouble);
      maps.push_back(linear(fmt::format("symmetric {} {}", radius, seed),
                            with_eigenvalues(even, seed), seed + 50));
      const Tensor stiff = 1 - at::logspace(std::log10(1 - radius), 0, 32, 10, at::kDouble);
      maps.push_back(linear(fmt::format("stiff {} {}", radius, seed), with_eigenvalues(stiff, seed),
                            seed + 60));
      maps.push_back(
          linear(fmt::format("rotations {} {}", radius, seed), rotations(32, radius), seed + 70));
      maps.push_back(linear(fmt::format("nilpotent {} {}", radius, seed),
                            radius * at::eye(16, at::kDouble).roll(1, 1).triu(1), seed + 80));
    }
    for (const double std : {0.05, 0.1, 0.15, 0.2, 0.25}) maps.push_back(post_norm(std, seed));
  }
  return maps;
}

int64_t evaluations(const RandomMap& map, const Solver& solver) {
  const Report report = solve(map.f, map.z0, solver, {.max_steps = kMost, .rel_tol = 1e-3}).report;
  return report.converged() ? report.evaluations : kMost + 1;
}

TEST(SolverMaps, PlainIterationNeverBeatsAndersonByMuch) {
  for (const RandomMap& map : random_maps()) {
    for (const Scope scope : {Scope::Sample, Scope::Causal}) {
      const int64_t plain = evaluations(map, Picard{.scope = scope});
      const int64_t mixed = evaluations(map, Anderson{.scope = scope});
      // Plain iteration of a nilpotent map is exact after as many steps as it has places.
      const bool shifts = map.name.starts_with("nilpotent");
      EXPECT_LE(mixed, plain + (shifts ? plain + 4 : plain / 4 + 8))
          << map.name << ", scope " << Names<Scope>::values[size_t(scope)];
    }
  }
}

TEST(SolverMaps, PlainStepsThatGrowEndAndCostFewEvaluations) {
  int64_t sum = 0;
  for (const uint64_t seed : {1, 2, 3, 4}) {
    const Tensor values = at::linspace(-3, 0.99, 100, at::kDouble);
    const RandomMap map = linear("expands", with_eigenvalues(values, seed), seed + 90);
    const Report report =
        solve(map.f, map.z0, Anderson{.memory = 5}, {.max_steps = 400, .rel_tol = 1e-6}).report;
    EXPECT_TRUE(report.converged()) << seed;
    sum += report.evaluations;
  }
  EXPECT_LE(sum, 700) << "618; 1,007 where such steps lengthen the next mixtures";
}

}  // namespace
}  // namespace deq
