// Dense linear algebra of the kernels of quadratic programs, for one sample or for one in each
// lane: everything is one product of tall blocks, c += a^T b. Matrices are by rows, `stride`
// numbers apart, a multiple of a unit; numbers behind the last column are anything finite.
#if defined(DEQ_OPS_DENSE_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef DEQ_OPS_DENSE_INL_H_
#undef DEQ_OPS_DENSE_INL_H_
#else
#define DEQ_OPS_DENSE_INL_H_
#endif

#include "deq/ops/pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {

template <class V>
constexpr int64_t padded(int64_t n) {
  return (n + Count<V>::unit - 1) / Count<V>::unit * Count<V>::unit;
}

/// A block of rows.
template <class V>
struct Rows {
  V* data = nullptr;
  int64_t count = 0, columns = 0, stride = 0;
  HWY_INLINE V* operator[](int64_t i) const { return data + i * stride; }
};

/// c[i][j] += sign sum_k a[k][i] b[k][j] for I rows of c and J units of its columns.
template <int I, int J, bool kMinus, class V>
HWY_INLINE void tile(int64_t K, const V* HWY_RESTRICT a, int64_t lda, const V* HWY_RESTRICT b,
                     int64_t ldb, V* HWY_RESTRICT c, int64_t ldc) {
  using C = Count<V>;
  Vector sum[I][J];
  for (int i = 0; i < I; ++i)
    for (int j = 0; j < J; ++j) sum[i][j] = C::load(c + i * ldc + j * C::unit);
  for (int64_t k = 0; k < K; ++k, a += lda, b += ldb) {
    Vector right[J];
    for (int j = 0; j < J; ++j) right[j] = C::load(b + j * C::unit);
    for (int i = 0; i < I; ++i) {
      const Vector left = C::all(a + i);
      for (int j = 0; j < J; ++j)
        sum[i][j] = kMinus ? hn::NegMulAdd(left, right[j], sum[i][j])
                           : hn::MulAdd(left, right[j], sum[i][j]);
    }
  }
  for (int i = 0; i < I; ++i)
    for (int j = 0; j < J; ++j) C::store(sum[i][j], c + i * ldc + j * C::unit);
}

template <int I, bool kMinus, class V>
HWY_INLINE void tiles(int64_t units, int64_t K, const V* a, int64_t lda, const V* b, int64_t ldb,
                      V* c, int64_t ldc) {
  constexpr int64_t u = Count<V>::unit;
  int64_t j = 0;
  for (; j + 4 <= units; j += 4) tile<I, 4, kMinus>(K, a, lda, b + j * u, ldb, c + j * u, ldc);
  for (; j < units; ++j) tile<I, 1, kMinus>(K, a, lda, b + j * u, ldb, c + j * u, ldc);
}

/// c[i][j] += sign sum_k a[k][i] b[k][j], for i < rows and columns from (about) `from(i)` on.
template <bool kMinus, bool kUpper, class V>
HWY_INLINE void add_product(int64_t rows, int64_t columns, int64_t K, const V* a, int64_t lda,
                            const V* b, int64_t ldb, V* c, int64_t ldc) {
  constexpr int64_t u = Count<V>::unit;
  const int64_t units = (columns + u - 1) / u;
  int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    const int64_t from = kUpper ? i / u : 0;
    tiles<4, kMinus>(units - from, K, a + i, lda, b + from * u, ldb, c + i * ldc + from * u, ldc);
  }
  for (; i < rows; ++i) {
    const int64_t from = kUpper ? i / u : 0;
    tiles<1, kMinus>(units - from, K, a + i, lda, b + from * u, ldb, c + i * ldc + from * u, ldc);
  }
}

/// y += a x, rows of `columns` numbers.
template <class V>
HWY_INLINE void add_scaled(V a, const V* HWY_RESTRICT x, int64_t columns, V* HWY_RESTRICT y) {
  using C = Count<V>;
  const Vector factor = C::all(&a);
  for (int64_t j = 0; j < columns; j += C::unit)
    C::store(hn::MulAdd(factor, C::load(x + j), C::load(y + j)), y + j);
}

/// Of rows whose numbers behind the last column are 0 in one of them at least.
template <class V>
HWY_INLINE V dot(const V* HWY_RESTRICT x, const V* HWY_RESTRICT y, int64_t columns) {
  using C = Count<V>;
  Vector s0 = hn::Zero(Doubles()), s1 = s0;
  int64_t j = 0;
  for (; j + 2 * C::unit <= columns; j += 2 * C::unit) {
    s0 = hn::MulAdd(C::load(x + j), C::load(y + j), s0);
    s1 = hn::MulAdd(C::load(x + j + C::unit), C::load(y + j + C::unit), s1);
  }
  for (; j < columns; j += C::unit) s0 = hn::MulAdd(C::load(x + j), C::load(y + j), s0);
  return C::sum(hn::Add(s0, s1));
}

/// A square matrix U^T U, U above the diagonal.
template <class V>
struct Cholesky {
  Rows<V> U;
  V* inverse = nullptr;  // of U's diagonal
  V worst;               // the least pivot as a share of the diagonal it was

  /// The matrix's part above the diagonal stands in U. `floor`: a pivot is at least this share of
  /// its diagonal, and at least 1e-300.
  void factor(double floor) {
    constexpr int64_t kBlock = 4;
    const int64_t n = U.count;
    worst = V(1.0);
    for (int64_t i = 0; i < n; ++i) inverse[i] = U[i][i];  // what the pivots are shares of
    for (int64_t begin = 0; begin < n; begin += kBlock) {
      const int64_t rows = begin + kBlock < n ? kBlock : n - begin;
      const int64_t from = begin / Count<V>::unit * Count<V>::unit;
      add_product<true, false>(rows, U.columns - from, begin, U.data + begin, U.stride,
                               U.data + from, U.stride, U[begin] + from, U.stride);
      for (int64_t i = begin; i < begin + rows; ++i) {
        const int64_t at = i / Count<V>::unit * Count<V>::unit;
        for (int64_t k = begin; k < i; ++k) {
          const V factor = -U[k][i];
          add_scaled(factor, U[k] + at, U.columns - at, U[i] + at);
        }
        const V whole = max(inverse[i], V(1e-300));
        const V pivot = U[i][i];
        worst = min(worst, pivot / whole);
        const V root = sqrt(max(pivot, whole * V(floor)));
        inverse[i] = V(1.0) / root;
        scale(inverse[i], at, i);
        U[i][i] = root;
      }
    }
  }
  /// x = U^-T x.
  void solve_lower(V* x) const {
    constexpr int64_t u = Count<V>::unit;
    for (int64_t k = 0; k < U.count; ++k) {
      const V value = x[k] * inverse[k];
      const int64_t at = k / u * u;
      V kept[u];
      for (int64_t j = at; j < k; ++j) kept[j - at] = x[j];
      add_scaled(-value, U[k] + at, U.columns - at, x + at);
      for (int64_t j = at; j < k; ++j) x[j] = kept[j - at];
      x[k] = value;
    }
  }
  /// x = U^-1 x. In lanes by columns, so that columns of zeros leave every bit as it is.
  void solve_upper(V* x) const {
    if constexpr (Count<V>::unit == 1) {
      for (int64_t k = U.count - 1; k >= 0; --k) {
        const V value = x[k] * inverse[k];
        x[k] = value;
        for (int64_t i = 0; i < k; ++i) x[i] = fnma(U[i][k], value, x[i]);
      }
    } else {
      for (int64_t k = U.count - 1; k >= 0; --k) {
        const int64_t next = padded<V>(k + 1);
        V sum = x[k];
        for (int64_t j = k + 1; j < next && j < U.columns; ++j) sum = fnma(U[k][j], x[j], sum);
        if (next < U.columns) sum = sum - dot(U[k] + next, x + next, U.columns - next);
        x[k] = sum * inverse[k];
      }
    }
  }
  /// B = U^-T B, B of as many rows.
  void solve_lower(const Rows<V>& B) const {
    constexpr int64_t kBlock = 4;
    for (int64_t begin = 0; begin < U.count; begin += kBlock) {
      const int64_t rows = begin + kBlock < U.count ? kBlock : U.count - begin;
      add_product<true, false>(rows, B.columns, begin, U.data + begin, U.stride, B.data, B.stride,
                               B[begin], B.stride);
      for (int64_t i = begin; i < begin + rows; ++i) {
        for (int64_t k = begin; k < i; ++k) add_scaled(-U[k][i], B[k], B.columns, B[i]);
        using C = Count<V>;
        const Vector factor = C::all(inverse + i);
        for (int64_t j = 0; j < B.columns; j += C::unit)
          C::store(hn::Mul(factor, C::load(B[i] + j)), B[i] + j);
      }
    }
  }

 private:
  HWY_INLINE void scale(V by, int64_t at, int64_t i) const {
    using C = Count<V>;
    const Vector factor = C::all(&by);
    for (int64_t j = at; j < U.columns; j += C::unit)
      C::store(hn::Mul(factor, C::load(U[i] + j)), U[i] + j);
  }
};

/// y = M x. In lanes each sum goes through the columns in order, so that columns of zeros leave
/// every bit as it is.
template <class V>
HWY_INLINE void multiply(const Rows<V>& M, const V* HWY_RESTRICT x, V* HWY_RESTRICT y) {
  int64_t i = 0;
  if constexpr (Count<V>::unit == 1) {
    for (; i + 4 <= M.count; i += 4) {
      const V *const a = M[i], *const b = M[i + 1], *const c = M[i + 2], *const d = M[i + 3];
      V s0 = V(0.0), s1 = s0, s2 = s0, s3 = s0;
      for (int64_t j = 0; j < M.columns; ++j) {
        s0 = fma(a[j], x[j], s0);
        s1 = fma(b[j], x[j], s1);
        s2 = fma(c[j], x[j], s2);
        s3 = fma(d[j], x[j], s3);
      }
      y[i] = s0, y[i + 1] = s1, y[i + 2] = s2, y[i + 3] = s3;
    }
    for (; i < M.count; ++i) {
      V sum = V(0.0);
      for (int64_t j = 0; j < M.columns; ++j) sum = fma(M[i][j], x[j], sum);
      y[i] = sum;
    }
  } else {
    for (; i < M.count; ++i) y[i] = dot(M[i], x, M.columns);
  }
}
/// y += M^T x.
template <class V>
HWY_INLINE void add_transposed(const Rows<V>& M, const V* x, V* y) {
  for (int64_t i = 0; i < M.count; ++i) add_scaled(x[i], M[i], M.columns, y);
}

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
