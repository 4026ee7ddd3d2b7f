// The system of the active rows, K = [Q C'; C 0], which the solution solves and its gradients too.
//
//     U'U = Q + C'C,   W = U^-T C',   V'V = W'W
//     K [x; y] = [f; g]:   t = U^-T (f + C'g),   V'V y = W't - g,   x = U^-1 (t - W y)
//
// Q + C'C is regular where K is, whether or not Q is. Rows that a sample does not hold are 0 there,
// and 1 on the diagonal of W'W.
#if defined(DEQ_OPS_REDUCED_KKT_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEQ_OPS_REDUCED_KKT_INL_H_
#undef DEQ_OPS_REDUCED_KKT_INL_H_
#else
#define DEQ_OPS_REDUCED_KKT_INL_H_
#endif

#include "deq/ops/interior_point-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {

/// K of some rows and its factors. `held` says which of them a sample holds.
template <class V>
struct Reduced {
  Rows<V> Q, C, W;
  V* held = nullptr;  ///< (k), 1 or 0
  Cholesky<V> outer, inner;

  static int64_t numbers(int64_t n, int64_t k) {
    const int64_t N = padded<V>(n), K = padded<V>(k);
    return Count<V>::samples * (2 * n * N + k * N + n * K + k * K + N + 2 * K) + 10 * kLanes;
  }

  /// The same memory again whenever n and k are the same.
  Reduced(int64_t n, int64_t k, AlignedNumbers& memory, bool clear) {
    int64_t used = 0;
    const auto take = [&](int64_t count) {
      V* const at = reinterpret_cast<V*>(memory.data + used);
      const int64_t numbers = padded<double>(count * Count<V>::samples);
      used += numbers;
      if (clear) std::fill(memory.data + used - numbers, memory.data + used, 0.0);
      return at;
    };
    const auto rows = [&](int64_t count, int64_t columns) {
      const int64_t stride = padded<V>(columns);
      return Rows<V>{take(count * stride), count, columns, stride};
    };
    Q = rows(n, n);
    C = rows(k, n);
    W = rows(n, k);
    held = take(padded<V>(k));
    outer.U = rows(n, n);
    outer.inverse = take(padded<V>(n));
    inner.U = rows(k, k);
    inner.inverse = take(padded<V>(k));
  }

  void factor() {
    const int64_t n = Q.count, k = C.count;
    using Unit = Count<V>;
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < n; j += Unit::unit) Unit::store(Unit::load(Q[i] + j), outer.U[i] + j);
    add_product<false, true>(n, n, k, C.data, C.stride, C.data, C.stride, outer.U.data,
                             outer.U.stride);
    outer.factor(1e-15);
    for (int64_t i = 0; i < n; ++i)
      for (int64_t j = 0; j < k; ++j) W[i][j] = C[j][i];
    outer.solve_lower(W);
    add_product<false, true>(k, k, n, W.data, W.stride, W.data, W.stride, inner.U.data,
                             inner.U.stride);
    for (int64_t j = 0; j < k; ++j) inner.U[j][j] = inner.U[j][j] + (V(1.0) - held[j]);
    inner.factor(1e-15);
  }

  /// x (n) and y (k), in place; `scratch` (n).
  void solve_once(V* x, V* y, V* scratch) const {
    const int64_t n = Q.count, k = C.count;
    add_transposed(C, y, x);
    outer.solve_lower(x);
    for (int64_t j = 0; j < k; ++j) y[j] = -y[j];
    add_transposed(W, x, y);
    inner.solve_lower(y);
    inner.solve_upper(y);
    multiply(W, y, scratch);
    for (int64_t i = 0; i < n; ++i) x[i] = x[i] - scratch[i];
    outer.solve_upper(x);
  }

  /// f - Q x - C'y and g - C x.
  void residual(const V* f, const V* g, const V* x, const V* y, V* rf, V* rg) const {
    const int64_t n = Q.count, k = C.count;
    for (int64_t i = 0; i < n; ++i) rf[i] = -dot(Q[i], x, n) + f[i];
    for (int64_t j = 0; j < k; ++j) rg[j] = -y[j];
    add_transposed(C, rg, rf);
    for (int64_t j = 0; j < k; ++j) rg[j] = held[j] * g[j] - dot(C[j], x, n);
  }

  /// Solves, and solves for what is left over. f and g hold the right hand sides, x and y become
  /// the solution; returns what is left over at last, the largest entry.
  V solve(const V* f, const V* g, V* x, V* y, V* rf, V* rg, V* scratch, int64_t rounds) const {
    const int64_t n = Q.count, k = C.count;
    for (int64_t i = 0; i < n; ++i) x[i] = f[i];
    for (int64_t j = 0; j < k; ++j) y[j] = held[j] * g[j];
    solve_once(x, y, scratch);
    for (int64_t round = 0; round < rounds; ++round) {
      residual(f, g, x, y, rf, rg);
      solve_once(rf, rg, scratch);
      for (int64_t i = 0; i < n; ++i) x[i] = x[i] + rf[i];
      for (int64_t j = 0; j < k; ++j) y[j] = y[j] + rg[j];
    }
    residual(f, g, x, y, rf, rg);
    return largest(rf, n, largest(rg, k));
  }
};

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
