// Maps with known fixed points, for the tests of every room.
#pragma once

#include <ATen/ATen.h>

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "deq/solvers/solvers.h"

namespace deq::testing {

/// Normal numbers from a seed of their own: no test depends on another's draws.
inline at::Tensor randn(at::IntArrayRef sizes, at::ScalarType type, uint64_t seed) {
  auto generator = at::detail::createCPUGenerator(seed);
  return at::randn(sizes, generator, at::TensorOptions().dtype(at::kDouble)).to(type);
}

/// z / (1 + |z|): slope at most 1, and exact IEEE operations only, so that a result does not depend
/// on how a loop over elements was cut into vectors.
inline at::Tensor softsign(const at::Tensor& z) { return z / (1 + z.abs()); }

struct Problem {
  std::string name;
  Map f;
  at::Tensor z0;
  at::Tensor solution;
};

/// The fixed point of a contraction, by as many steps as it takes until nothing moves.
inline at::Tensor picard_limit(const Map& f, at::Tensor z) {
  at::NoGradGuard no_tape;
  for (int k = 0; k < 3000; ++k) {
    const at::Tensor next = f(z);
    if (next.equal(z)) break;
    z = next;
  }
  return z;
}

/// f(z) = z* + (z - z*) M along the last dimension, |M| = `slope`; z* is random.
inline Problem affine(at::IntArrayRef sizes, at::ScalarType type, double slope = 0.8) {
  const int64_t n = sizes.back();
  at::Tensor m = randn({n, n}, at::kDouble, 1);
  m = (m * (slope / at::linalg_matrix_norm(m, 2))).to(type);
  const at::Tensor solution = randn(sizes, type, 2);
  return {"affine", [=](const at::Tensor& z) { return solution + at::matmul(z - solution, m); },
          at::zeros(sizes, type), solution};
}

/// f(z) = 0.8 softsign(z rolled by one feature) + x: a contraction of every row, elementwise.
inline Problem contraction(at::IntArrayRef sizes, at::ScalarType type, uint64_t seed = 3) {
  const at::Tensor x = randn(sizes, type, seed);
  const Map f = [x](const at::Tensor& z) { return 0.8 * softsign(z.roll(1, -1)) + x; };
  const at::Tensor z0 = at::zeros(sizes, type);
  return {"contraction", f, z0, picard_limit(f, z0)};
}

/// Position t of f(z) depends on positions <= t of z, through all their means: (B, T, ...).
inline Map causal_map(const at::Tensor& x) {
  const int64_t positions = x.size(1);
  const at::Tensor count =
      at::arange(1, positions + 1, x.options()).view({1, positions, 1});  // broadcast over features
  return [=](const at::Tensor& z) {
    const at::Tensor mean = z.cumsum(1) / count;
    return 0.7 * softsign(z.roll(1, -1)) + 0.6 * softsign(1.5 * mean.roll(2, -1)) + x;
  };
}
inline Problem causal(int64_t batch, int64_t positions, int64_t features, at::ScalarType type,
                      uint64_t seed = 4) {
  const Map f = causal_map(randn({batch, positions, features}, type, seed));
  const at::Tensor z0 = at::zeros({batch, positions, features}, type);
  return {"causal", f, z0, picard_limit(f, z0)};
}
/// The same with time reversed: position t depends on positions >= t.
inline Map backward_causal_map(const at::Tensor& x) {
  const Map forward = causal_map(x.flip(1));
  return [=](const at::Tensor& z) { return forward(z.flip(1)).flip(1); };
}

/// jaxopt's rotation: seven 2 x 2 rotations about c. Picard never converges.
inline Problem rotation() {
  const std::vector<double> parts = {2, 3, 4, 5, 6, 1.27, 1.73};
  at::Tensor r = at::zeros({14, 14}, at::kDouble);
  for (size_t i = 0; i < parts.size(); ++i) {
    const double angle = M_PI / parts[i];
    const int64_t k = 2 * int64_t(i);
    r[k][k] = std::cos(angle), r[k][k + 1] = -std::sin(angle);
    r[k + 1][k] = std::sin(angle), r[k + 1][k + 1] = std::cos(angle);
  }
  const at::Tensor c = at::arange(1, 15, at::kDouble).unsqueeze(0);
  auto generator = at::detail::createCPUGenerator(5);
  return {"rotation", [=](const at::Tensor& z) { return at::matmul(z - c, r.t()) + c; },
          at::rand({1, 14}, generator, at::TensorOptions().dtype(at::kDouble)), c};
}

/// One row of `z0`'s numbers for a scalar function, elementwise.
inline at::Tensor row(const std::vector<double>& z0) {
  return at::tensor(z0, at::kDouble).unsqueeze(0);
}
inline Problem diagonal() {
  const at::Tensor d = row({.9, .99, .999});
  return {"diagonal", [=](const at::Tensor& z) { return d * z; }, row({1, .4, -.2}),
          at::zeros({1, 3}, at::kDouble)};
}
inline Problem cosine() {
  return {"cosine", [](const at::Tensor& z) { return z.cos(); }, row({0}),
          row({0.739085133215160641})};
}
inline Problem newton_sqrt2() {
  return {"newton", [](const at::Tensor& z) { return 0.5 * (z + 2 / z); }, row({1}),
          row({std::sqrt(2.0)})};
}
/// a z + b with the fixed point b / (1 - a).
inline Problem line(double a, double b) {
  return {"line", [=](const at::Tensor& z) { return a * z + b; }, row({0}), row({b / (1 - a)})};
}

/// Counts the calls of a map.
struct Counted {
  explicit Counted(Map f) : map([this, f](const at::Tensor& z) { return ++calls, f(z); }) {}
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  int64_t calls = 0;
  Map map;
};

/// |f(z) - z| / |f(z)| of every row, from scratch.
inline at::Tensor residual_of(const Map& f, const at::Tensor& z, Scope scope) {
  const Layout layout(z, scope, Order::Forward);
  const at::Tensor fz = layout.fold(f(z)).to(at::kDouble);
  const at::Tensor g = fz - layout.fold(z).to(at::kDouble);
  return g.norm(2, {1}) / (fz.norm(2, {1}) + 1e-30);
}

inline double largest(const at::Tensor& t) { return t.numel() ? t.abs().max().item<double>() : 0; }
/// |a - b| / |b|
inline double relative_error(const at::Tensor& a, const at::Tensor& b) {
  return ((a - b).norm() / b.norm()).item<double>();
}

}  // namespace deq::testing
