#include "deq/gradients/spectral_radius.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <algorithm>
#include <functional>
#include <limits>

#include "deq/base/epsilon.h"
#include "deq/gradients/taped_jacobian.h"
#include "deq/solvers/layout.h"

namespace deq {
namespace {

using at::Tensor;

constexpr int64_t kVectors = 128;  // of a subspace
constexpr double kTied = 1e-3;     // moduli that differ by less are one
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr double kRoundings = 8;  // of J, by which a radius is tried
constexpr double kShaken = 1e-8;  // of a subspace's H, at least: its radius is known to kTied only

/// J^T of every sample on a subspace of its own, J^T Q = unit (Q H + rest), with Q orthonormal.
struct Subspace {
  Tensor Q;          // (B, n, m)
  Tensor H;          // (B, m, m)
  Tensor rest;       // (B) the norm of what J^T makes of the last vector outside of Q
  Tensor unit;       // (B) powers of two: squares of H are numbers, whatever J is multiplied with
  bool all = false;  // H is J^T, and a zero of it is one
};

/// A power of two for each row: in the middle between its largest and its smallest number.
Tensor middle_of(const Tensor& rows) {
  const Tensor sizes = rows.abs(), none = sizes.eq(0);
  const Tensor largest = std::get<1>(at::frexp(sizes.amax(1)));
  const Tensor least = std::get<1>(at::frexp(sizes.masked_fill(none, kInfinity).amin(1)));
  const Tensor middle = at::floor_divide(largest + least, 2) - 1;
  const Tensor exponent = at::maximum(middle, largest - 1000);  // the largest stays a number
  const Tensor usable = rows.isfinite().all(1).logical_and(none.all(1).logical_not());
  return at::exp2(at::where(usable, exponent, at::zeros_like(exponent)).to(at::kDouble));
}

using Apply = std::function<Tensor(const Tensor& rows)>;  // (B, n) double -> J^T of it

Tensor normalised(const Tensor& rows) { return rows / (rows.norm(2, {1}, true) + 1e-300); }

/// rows less their part in Q, twice for the digits that the first time loses; adds it to h (B, m).
Tensor outside(const Tensor& Q, Tensor rows, Tensor h) {
  for (int pass = 0; pass < 2; ++pass) {
    const Tensor part = Q.transpose(1, 2).matmul(rows.unsqueeze(2));  // (B, m, 1)
    rows = rows - Q.matmul(part).squeeze(2);
    h.add_(part.squeeze(2));
  }
  return rows;
}

/// All of J^T, by unit vectors.
Subspace whole_space(const Apply& apply, int64_t batch, int64_t n) {
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const Tensor basis = at::eye(n, options);
  std::vector<Tensor> columns;
  for (int64_t k = 0; k < n; ++k) columns.push_back(apply(basis[k].expand({batch, n})));
  const Tensor J = at::stack(columns, 2), unit = middle_of(J.view({batch, n * n}));
  return {basis.expand({batch, n, n}), J / unit.view({batch, 1, 1}), at::zeros({batch}, options),
          unit, /*all=*/true};
}

/// m products from `start` (B, n). Where the space is closed before, a random direction goes on.
Subspace arnoldi(const Apply& apply, const Tensor& start, int64_t m) {
  const int64_t B = start.size(0), n = start.size(1);
  Tensor Q = at::zeros({B, n, m}, start.options()), H = at::zeros({B, m, m}, start.options());
  Tensor q = normalised(start), rest, unit;
  for (int64_t k = 0; k < m; ++k) {
    Q.select(2, k).copy_(q);
    const Tensor given = apply(q);
    if (k == 0) unit = middle_of(given.abs().amax(1, true));
    const Tensor image = given / unit.unsqueeze(1);
    const Tensor known = Q.narrow(2, 0, k + 1);
    const Tensor w = outside(known, image, H.select(2, k).narrow(1, 0, k + 1));
    rest = w.norm(2, {1});
    const Tensor closed = rest <= 1e-14 * image.norm(2, {1});
    rest = rest.masked_fill(closed, 0);
    if (k + 1 == m) break;
    H.select(2, k).select(1, k + 1).copy_(rest);
    q = normalised(w);
    if (!closed.any().item<bool>()) continue;
    const Tensor other = outside(known, at::randn_like(w), at::zeros({B, k + 1}, w.options()));
    q = at::where(closed.unsqueeze(1), normalised(other), q);
  }
  return {Q, H, rest, unit};
}

/// Of complex numbers of any size.
Tensor sizes_of(const Tensor& values) { return at::hypot(at::real(values), at::imag(values)); }

/// The eigenvalue of largest modulus in each subspace, and where a restart would begin, (B, n).
struct Dominant {
  Tensor radius, residual, next;
};
Dominant dominant(const Subspace& s) {
  // LAPACK takes finite numbers only; NaN is the answer where there are others.
  const Tensor lost = s.H.isfinite().all(2).all(1).logical_not();
  const Tensor none = at::zeros_like(s.rest).masked_fill(lost, kNaN);  // (B)
  const auto [values, vectors] =
      at::linalg_eig(s.H.masked_fill(lost.view({-1, 1, 1}), 0));  // (B, m), (B, m, m)
  const Tensor moduli = sizes_of(values);
  // Zero of a zero matrix; beside it a rest is infinitely large.
  const Tensor beyond = s.rest.unsqueeze(1) * vectors.select(1, vectors.size(1) - 1).abs();
  const Tensor residuals = at::where(beyond == 0, beyond, beyond / moduli);  // (B, m)
  // Of those that are the largest, to within their tolerance, the one that is known best.
  const Tensor smaller = moduli < (1 - kTied) * moduli.amax(1, true);
  const Tensor place = residuals.masked_fill(smaller, kInfinity).argmin(1, /*keepdim=*/true);
  const Tensor vector =
      at::real(vectors.gather(2, place.unsqueeze(1).expand({-1, vectors.size(1), 1})).squeeze(2));
  const Tensor radius = moduli.gather(1, place).squeeze(1) * s.unit + none;
  const Tensor residual = residuals.gather(1, place).squeeze(1) + none;
  return {radius, residual.masked_fill(radius.isinf(), kInfinity),
          s.Q.matmul(vector.contiguous().unsqueeze(2)).squeeze(2)};
}

bool known(const Tensor& errors) {
  return errors.le(SpectralRadius::kTolerance).all().item<bool>();
}

/// By what part of itself the radius moves where J moves by its rounding. The residual cannot tell:
/// it is that of a J nearby, whose eigenvalues are far off where J is far from normal.
Tensor moved_by_rounding(const Subspace& s, const Tensor& radius, double rounding) {
  const Tensor& H = s.H;
  const at::Generator same = at::make_generator<at::CPUGeneratorImpl>(1);
  const Tensor noise = at::randn(H.sizes(), same, H.options());
  // Where J is known number by number, each of them is rounded.
  const double part = s.all ? kRoundings * rounding : std::max(kRoundings * rounding, kShaken);
  const Tensor size = part * (s.all ? H.abs() : H.norm(2, {1, 2}, true) / double(H.size(1)));
  const Tensor tried = H + noise * size, lost = tried.isfinite().all(2).all(1).logical_not();
  const Tensor values = at::linalg_eigvals(tried.masked_fill(lost.view({-1, 1, 1}), 0));
  const Tensor moved = (sizes_of(values).amax(1) * s.unit).masked_fill(lost, kNaN);
  const Tensor change = (moved - radius).abs();
  return at::where(change == 0, change, change / radius);
}

}  // namespace

bool SpectralRadius::converged() const { return known(residual) && known(moved); }

SpectralRadius spectral_radius(const Map& f, const Tensor& z, int64_t max_products) {
  DEQ_CHECK(max_products >= 1, "spectral_radius: max_products = {}; expected >= 1", max_products);
  const TapedJacobian jacobian(f, z, /*again=*/false);
  c10::NoGradGuard no_tape;
  const Layout layout(z, Scope::Sample, Order::Forward);
  const int64_t B = layout.batch, n = layout.width(), m = std::min(n, kVectors);
  SpectralRadius found;
  const auto options = at::TensorOptions().dtype(at::kDouble);
  if (z.numel() == 0)
    return {at::zeros({B}, options), at::zeros({B}, options), at::zeros({B}, options)};
  const Apply apply = [&](const Tensor& rows) {
    ++found.products;
    const Tensor v = rows.to(z.options()).reshape(z.sizes());
    return layout.fold(jacobian.vjp(v)).to(options.device(at::kCPU));
  };
  const double rounding = epsilon_of(z.scalar_type());
  const auto keep = [&](const Subspace& space) {
    const Dominant now = dominant(space);
    found.radius = now.radius;
    found.residual = now.residual;
    return now.next;
  };
  Subspace space;
  if (n <= kVectors && n <= max_products) {
    space = whole_space(apply, B, n);
    keep(space);
  } else {
    Tensor start = at::randn({B, n}, options);
    int64_t next = std::min(m, max_products);
    do {
      space = arnoldi(apply, start, next);
      start = keep(space);
      next = m;
    } while (!known(found.residual) && found.products + next <= max_products);
  }
  found.moved = moved_by_rounding(space, found.radius, rounding);
  return found;
}

}  // namespace deq
