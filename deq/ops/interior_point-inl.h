// A primal-dual interior point method inside a proximal method of multipliers (Pougkakiotis and
// Gondzio, "An interior point-proximal method of multipliers for convex quadratic programming",
// 2021; predictor and corrector after Mehrotra, 1992). With s = h - Gz and the proximal weights rho
// and delta about the iterate itself, a step solves
//
//     (Q + rho I + A'A / delta + G'DG) dz = -rd - A'rp / delta - G't,   D = lam / (s + delta lam)
//     t = D (rg - rc / lam),   dnu = (A dz + rp) / delta,   dlam = D G dz + t
//     ds = -rg - G dz + delta dlam
//
//     rd = Qz + q + A'nu + G'lam,  rp = Az - b,  rg = Gz + s - h,
//     rc = s lam (+ ds dlam - sigma mu)
//
// so that neither Q nor A needs full rank, and one Cholesky factor serves a step.
#if defined(DEQ_OPS_INTERIOR_POINT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEQ_OPS_INTERIOR_POINT_INL_H_
#undef DEQ_OPS_INTERIOR_POINT_INL_H_
#else
#define DEQ_OPS_INTERIOR_POINT_INL_H_
#endif

#include "deq/ops/dense-inl.h"
#include "deq/ops/quadratic_kernel.h"

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {

/// The matrices of a few samples. Rows of G with few numbers are also kept as lists.
template <class V>
struct Matrices {
  int64_t n = 0, p = 0, m = 0;
  Rows<V> Q, A, G;
  V *q = nullptr, *b = nullptr, *h = nullptr;
  Rows<V> AtA;
  bool sparse = false;             ///< G, in all samples
  const int64_t* begin = nullptr;  ///< (m + 1) into `column`
  const int64_t* column = nullptr;

  /// y = G x.
  HWY_INLINE void constraints(const V* x, V* y) const {
    if (!sparse) return multiply(G, x, y);
    for (int64_t i = 0; i < m; ++i) {
      V sum = V(0.0);
      for (int64_t k = begin[i]; k < begin[i + 1]; ++k)
        sum = fma(G[i][column[k]], x[column[k]], sum);
      y[i] = sum;
    }
  }
  /// y += G' x.
  HWY_INLINE void add_constraints(const V* x, V* y) const {
    if (!sparse) return add_transposed(G, x, y);
    for (int64_t i = 0; i < m; ++i)
      for (int64_t k = begin[i]; k < begin[i + 1]; ++k)
        y[column[k]] = fma(G[i][column[k]], x[i], y[column[k]]);
  }
  /// H += G' diag(d) G above the diagonal; `scaled` has G's shape.
  void add_gram(const V* d, const Rows<V>& scaled, const Rows<V>& H) const {
    if (sparse) {
      for (int64_t i = 0; i < m; ++i) {
        for (int64_t k = begin[i]; k < begin[i + 1]; ++k) {
          const V left = d[i] * G[i][column[k]];
          V* const row = H[column[k]];
          for (int64_t l = k; l < begin[i + 1]; ++l)
            row[column[l]] = fma(left, G[i][column[l]], row[column[l]]);
        }
      }
      return;
    }
    using C = Count<V>;
    for (int64_t i = 0; i < m; ++i) {
      const Vector factor = C::all(d + i);
      for (int64_t j = 0; j < n; j += C::unit)
        C::store(hn::Mul(factor, C::load(G[i] + j)), scaled[i] + j);
    }
    add_product<false, true>(n, n, m, scaled.data, scaled.stride, G.data, G.stride, H.data,
                             H.stride);
  }
};

/// Numbers of V, aligned, zero at first.
template <class V>
class Arena {
 public:
  explicit Arena(AlignedNumbers& memory) : memory_(memory) {}
  V* take(int64_t count) {
    const int64_t numbers = padded<double>(count * Count<V>::samples);
    V* const at = reinterpret_cast<V*>(memory_.data + used_);
    used_ += numbers;
    std::fill(memory_.data + used_ - numbers, memory_.data + used_, 0.0);
    return at;
  }
  V* vector(int64_t n) { return take(padded<V>(n)); }
  Rows<V> rows(int64_t count, int64_t columns) {
    const int64_t stride = padded<V>(columns);
    return {take(count * stride), count, columns, stride};
  }

 private:
  AlignedNumbers& memory_;
  int64_t used_ = 0;
};

template <class V>
HWY_INLINE V largest(const V* x, int64_t n, V so_far = V(0.0)) {
  for (int64_t i = 0; i < n; ++i) so_far = max(so_far, abs(x[i]));
  return so_far;
}

/// The method, from its own start, for one sample or one in each lane.
template <class V>
class InteriorPoint {
 public:
  using Mask = typename Count<V>::Mask;

  V *z = nullptr, *nu = nullptr, *lam = nullptr, *s = nullptr;
  int64_t steps[kLanes] = {};

  static int64_t numbers(int64_t n, int64_t p, int64_t m) {
    const int64_t N = padded<V>(n), P = padded<V>(p), M = padded<V>(m);
    return Count<V>::samples * (6 * N + 4 * P + 12 * M + n * N + m * N) + 40 * kLanes;
  }

  InteriorPoint(const Matrices<V>& problem, Arena<V>& arena) : at_(problem) {
    const int64_t n = at_.n, p = at_.p, m = at_.m;
    for (V** x : {&z, &rd_, &dz_, &hinv_}) *x = arena.vector(n);
    for (V** x : {&nu, &rp_, &dnu_, &tp_}) *x = arena.vector(p);
    for (V** x : {&lam, &s, &rg_, &rc_, &t_, &d_, &dlam_, &ds_, &gz_, &per_s_, &per_lam_})
      *x = arena.vector(m);
    chol_.U = arena.rows(n, n);
    chol_.inverse = hinv_;
    scaled_ = at_.sparse ? Rows<V>{} : arena.rows(m, n);
  }

  /// Until gap and residual are below the limits or the steps run out, for each sample by itself.
  /// Returns the samples that arrived.
  Mask run(const QuadraticLimits& limits) {
    begin();
    Mask done = V(1.0) < V(0.0), lost = done;
    for (int64_t k = 0;; ++k) {
      const V gap = residuals();
      const V error = max(largest(rd_, at_.n) / dual_size_,
                          max(largest(rp_, at_.p), largest(rg_, at_.m)) / primal_size_);
      done = done || (!lost && gap <= V(limits.gap) && error <= V(limits.residual));
      // Neither of both will get any better. Not a number: never.
      lost = lost || !(largest(lam, at_.m, largest(nu, at_.p, largest(z, at_.n))) <= V(1e11));
      const Mask open = !(done || lost);
      if (!any(open) || k == limits.steps) break;
      for (int64_t i = 0; i < Count<V>::samples; ++i) steps[i] += lane(open, i);
      step(gap, open, k < kQuick);
    }
    return done;
  }

 private:
  static constexpr double kLeast = 1e-9, kMost = 1e-6;
  static constexpr int64_t kQuick = 16;
  static constexpr double kCentred = 0.2;

  void factor(V weight) {
    Rows<V>& H = chol_.U;
    using C = Count<V>;
    const V share = V(1.0) / weight;
    for (int64_t i = 0; i < at_.n; ++i) {
      const int64_t from = i / C::unit * C::unit;
      if (at_.p == 0) {
        for (int64_t j = from; j < at_.n; j += C::unit) C::store(C::load(at_.Q[i] + j), H[i] + j);
      } else {
        const Vector factor = C::all(&share);
        for (int64_t j = from; j < at_.n; j += C::unit)
          C::store(hn::MulAdd(factor, C::load(at_.AtA[i] + j), C::load(at_.Q[i] + j)), H[i] + j);
      }
    }
    at_.add_gram(d_, scaled_, H);
    for (int64_t i = 0; i < at_.n; ++i) H[i][i] = H[i][i] + weight;
    chol_.factor(1e-14);
  }

  void begin() {
    const int64_t n = at_.n, p = at_.p, m = at_.m;
    for (int64_t i = 0; i < m; ++i) d_[i] = V(1.0);
    const V weight = V(1e-3);
    factor(weight);
    for (int64_t i = 0; i < n; ++i) z[i] = -at_.q[i];
    for (int64_t i = 0; i < p; ++i) tp_[i] = at_.b[i] / weight;
    add_transposed(at_.A, tp_, z);
    at_.add_constraints(at_.h, z);
    chol_.solve_lower(z);
    chol_.solve_upper(z);
    multiply(at_.A, z, nu);
    for (int64_t i = 0; i < p; ++i) nu[i] = (nu[i] - at_.b[i]) / weight;
    at_.constraints(z, gz_);
    V low_s = V(0.0), low_l = V(0.0);
    for (int64_t i = 0; i < m; ++i) {
      lam[i] = gz_[i] - at_.h[i];
      s[i] = -lam[i];
      low_s = min(low_s, s[i]);
      low_l = min(low_l, lam[i]);
    }
    const V up_s = V(-1.5) * low_s, up_l = V(-1.5) * low_l;
    V product = V(1e-300), sum_s = V(1e-300), sum_l = V(1e-300);
    for (int64_t i = 0; i < m; ++i) {
      s[i] = s[i] + up_s;
      lam[i] = lam[i] + up_l;
      product = fma(s[i], lam[i], product);
      sum_s = sum_s + s[i];
      sum_l = sum_l + lam[i];
    }
    const V more_s = max(V(0.5) * product / sum_l, V(1e-2));
    const V more_l = max(V(0.5) * product / sum_s, V(1e-2));
    for (int64_t i = 0; i < m; ++i) {
      s[i] = s[i] + more_s;
      lam[i] = lam[i] + more_l;
    }
    dual_size_ = max(V(1.0), largest(at_.q, n));
    primal_size_ = max(V(1.0), max(largest(at_.b, p), largest(at_.h, m)));
  }

  /// rd, rp, rg at the iterate; returns s'lam / m.
  V residuals() {
    const int64_t n = at_.n, p = at_.p, m = at_.m;
    for (int64_t i = 0; i < n; ++i) rd_[i] = at_.q[i] + dot(at_.Q[i], z, n);
    add_transposed(at_.A, nu, rd_);
    at_.add_constraints(lam, rd_);
    multiply(at_.A, z, rp_);
    for (int64_t i = 0; i < p; ++i) rp_[i] = rp_[i] - at_.b[i];
    at_.constraints(z, rg_);
    V sum = V(0.0);
    for (int64_t i = 0; i < m; ++i) {
      rg_[i] = rg_[i] + s[i] - at_.h[i];
      sum = fma(s[i], lam[i], sum);
    }
    return m == 0 ? V(0.0) : sum * V(1.0 / double(m));
  }

  /// The corrector may go round in circles for ever, far from the central path. Few programs need
  /// more than kQuick steps; from there on they stay near it, and none of second order are made.
  void step(V gap, Mask open, bool quick) {
    const int64_t n = at_.n, p = at_.p, m = at_.m;
    weight_ = min(V(kMost), max(V(kLeast), gap * V(1e-2)));
    for (int64_t i = 0; i < m; ++i) {
      d_[i] = lam[i] / fma(weight_, lam[i], s[i]);
      rc_[i] = s[i] * lam[i];
      per_lam_[i] = V(1.0) / lam[i];
      per_s_[i] = V(1.0) / s[i];
    }
    factor(weight_);
    direction();
    V next = V(0.0);
    const V far = length();
    for (int64_t i = 0; i < m; ++i)
      next = next + fma(far, ds_[i], s[i]) * fma(far, dlam_[i], lam[i]);
    if (m > 0) {
      next = next * V(1.0 / double(m));
      const V ratio = next / max(gap, V(1e-300));
      const V target = quick ? ratio * ratio * ratio * gap : V(kCentred) * gap;
      const V second = V(quick ? 1.0 : 0.0);
      for (int64_t i = 0; i < m; ++i)
        rc_[i] = fma(s[i], lam[i], second * ds_[i] * dlam_[i]) - target;
      direction();
    }
    const V reach = length();
    const V share = select(reach < V(1.0), reach * V(0.995), V(1.0));
    const auto move = [&](V* x, const V* dx, int64_t count) HWY_ATTR {
      for (int64_t i = 0; i < count; ++i) x[i] = select(open, fma(share, dx[i], x[i]), x[i]);
    };
    move(z, dz_, n);
    move(nu, dnu_, p);
    move(lam, dlam_, m);
    move(s, ds_, m);
    for (int64_t i = 0; i < m; ++i) {
      lam[i] = max(lam[i], V(1e-40));
      s[i] = max(s[i], V(1e-40));
    }
  }

  /// dz, dnu, dlam, ds for the rc that stands there.
  void direction() {
    const int64_t n = at_.n, p = at_.p, m = at_.m;
    for (int64_t i = 0; i < n; ++i) dz_[i] = -rd_[i];
    if (p > 0) {
      for (int64_t i = 0; i < p; ++i) tp_[i] = -rp_[i] / weight_;
      add_transposed(at_.A, tp_, dz_);
    }
    for (int64_t i = 0; i < m; ++i) {
      t_[i] = d_[i] * fnma(rc_[i], per_lam_[i], rg_[i]);
      gz_[i] = -t_[i];
    }
    at_.add_constraints(gz_, dz_);
    chol_.solve_lower(dz_);
    chol_.solve_upper(dz_);
    multiply(at_.A, dz_, dnu_);
    for (int64_t i = 0; i < p; ++i) dnu_[i] = (dnu_[i] + rp_[i]) / weight_;
    at_.constraints(dz_, gz_);
    for (int64_t i = 0; i < m; ++i) {
      dlam_[i] = fma(d_[i], gz_[i], t_[i]);
      ds_[i] = fma(weight_, dlam_[i], -rg_[i] - gz_[i]);
    }
  }

  /// The step, at most 1, at which the first slack or multiplier is 0.
  V length() const {
    V fastest = V(-1.0);
    for (int64_t i = 0; i < at_.m; ++i)
      fastest = min(fastest, min(ds_[i] * per_s_[i], dlam_[i] * per_lam_[i]));
    return V(-1.0) / fastest;
  }

  const Matrices<V>& at_;
  V *rd_ = nullptr, *dz_ = nullptr, *hinv_ = nullptr;              // (n)
  V *rp_ = nullptr, *dnu_ = nullptr, *tp_ = nullptr;               // (p)
  V *rg_ = nullptr, *rc_ = nullptr, *t_ = nullptr, *d_ = nullptr;  // (m)
  V *dlam_ = nullptr, *ds_ = nullptr, *gz_ = nullptr;              // (m)
  V *per_s_ = nullptr, *per_lam_ = nullptr;                        // (m)
  V dual_size_, primal_size_, weight_;
  Cholesky<V> chol_;
  Rows<V> scaled_;
};

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
