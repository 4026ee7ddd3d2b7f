// Compiled once per SIMD target (Highway).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deq/ops/quadratic_kernel.cpp"
#include "deq/ops/quadratic_kernel.h"

#include <hwy/aligned_allocator.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <utility>

#include "deq/ops/interior_point-inl.h"
#include "deq/ops/reduced_kkt-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {

constexpr int64_t kLargestInLanes = 32;

template <class V>
HWY_INLINE double* lane_of(V* x, int64_t i) {
  return reinterpret_cast<double*>(x) + i;
}

/// Sample i's rows into their lane.
template <class V>
void load(const double* from, int64_t rows, int64_t columns, int64_t stride, V* to, int64_t i,
          double factor = 1) {
  double* const out = lane_of(to, i);
  constexpr int64_t apart = Count<V>::samples;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c)
      out[(r * stride + c) * apart] = factor * from[r * columns + c];
}
template <class V>
void store(const V* from, int64_t count, int64_t i, double* to) {
  const double* const in = reinterpret_cast<const double*>(from) + i;
  for (int64_t k = 0; k < count; ++k) to[k] = in[k * Count<V>::samples];
}

AlignedNumbers& scratch(int64_t numbers) {
  thread_local AlignedNumbers memory;
  if (memory.size < numbers) memory = AlignedNumbers(numbers);
  return memory;
}

/// Samples in lanes, and what their solution needs. Lanes without a sample hold the first again.
template <class V>
class Group {
 public:
  using Mask = typename Count<V>::Mask;

  Group(const QuadraticShape& shape, const QuadraticData* data, int64_t count,
        const QuadraticLimits& limits, QuadraticState* states, ReducedFactors& factors)
      : n_(shape.n),
        p_(shape.p),
        m_(shape.m),
        count_(count),
        limits_(limits),
        states_(states),
        factors_(factors),
        arena_(scratch(Count<V>::samples * (3 * n_ + p_ + m_ + 6) * padded<V>(n_) +
                       InteriorPoint<V>::numbers(n_, p_, m_) +
                       Count<V>::samples * (10 * padded<V>(n_) + 8 * padded<V>(p_ + m_) +
                                            6 * padded<V>(m_) + 4 * padded<V>(p_)) +
                       64 * kLanes)) {
    problem_.n = n_, problem_.p = p_, problem_.m = m_;
    problem_.Q = arena_.rows(n_, n_);
    problem_.A = arena_.rows(p_, n_);
    problem_.G = arena_.rows(m_, n_);
    problem_.q = arena_.vector(n_);
    problem_.b = arena_.vector(p_);
    problem_.h = arena_.vector(m_);
    for (int64_t i = 0; i < Count<V>::samples; ++i) {
      const QuadraticData& own = data[i < count ? i : 0];
      load(own.Q, n_, n_, problem_.Q.stride, problem_.Q.data, i, own.curvature);
      load(own.A, p_, n_, problem_.A.stride, problem_.A.data, i);
      load(own.G, m_, n_, problem_.G.stride, problem_.G.data, i);
      load(own.q, 1, n_, n_, problem_.q, i);
      load(own.b, 1, p_, p_, problem_.b, i);
      load(own.h, 1, m_, m_, problem_.h, i);
    }
    list_numbers(data);
    held_ = arena_.vector(m_);
    slack_ = arena_.vector(m_);
    lam_ = arena_.vector(m_);
    z_ = arena_.vector(n_);
    y_ = arena_.vector(p_ + m_);
    for (V** x : {&f_, &rf_, &scratch_}) *x = arena_.vector(n_);
    for (V** x : {&g_, &rg_}) *x = arena_.vector(p_ + m_);
  }

  void solve() {
    Mask ready = V(0.0) < V(1.0);
    const Mask concave = limits_.concave < 0 ? V(1.0) < V(0.0) : curves_down();
    if (limits_.warm) {
      for (int64_t i = 0; i < Count<V>::samples; ++i)
        for (int64_t r = 0; r < m_; ++r)
          *lane_of(held_ + r, i) = double(states_[i < count_ ? i : 0].active[r] != 0);
    } else if (m_ > 0 || !limits_.polish) {
      ready = interior();
    }
    ready = ready && !concave;
    for (int64_t i = 0; i < count_; ++i) {
      states_[i].found = lane(ready, i)     ? Found::Stopped
                         : lane(concave, i) ? Found::Concave
                                            : Found::Open;
    }
    if (limits_.polish && any(ready)) polish(ready);
  }

 private:
  Mask interior() {
    if (p_ > 0) {
      problem_.AtA = arena_.rows(n_, n_);
      add_product<false, true>(n_, n_, p_, problem_.A.data, problem_.A.stride, problem_.A.data,
                               problem_.A.stride, problem_.AtA.data, problem_.AtA.stride);
    }
    InteriorPoint<V> inner(problem_, arena_);
    const Mask ready = inner.run(limits_);
    for (int64_t r = 0; r < m_; ++r) held_[r] = select(inner.s[r] < inner.lam[r], V(1.0), V(0.0));
    for (int64_t i = 0; i < count_; ++i) {
      QuadraticState& own = states_[i];
      store(inner.z, n_, i, own.z);
      store(inner.nu, p_, i, own.nu);
      store(inner.lam, m_, i, own.lam);
      store(inner.s, m_, i, own.s);
      own.steps = inner.steps[i];
      own.factorisations = inner.steps[i] + 1;
      for (int64_t r = 0; r < m_; ++r) own.active[r] = *lane_of(held_ + r, i) != 0;
    }
    return ready;
  }

  /// Where Q and a little of the unit matrix has no Cholesky factor.
  Mask curves_down() {
    Cholesky<V> factor;
    factor.U = arena_.rows(n_, n_);
    factor.inverse = arena_.vector(n_);
    V most = V(1e-300);
    for (int64_t i = 0; i < n_; ++i) {
      most = largest(problem_.Q[i], n_, most);
      for (int64_t j = 0; j < n_; ++j) factor.U[i][j] = problem_.Q[i][j];
    }
    for (int64_t i = 0; i < n_; ++i) factor.U[i][i] = factor.U[i][i] + most * V(limits_.concave);
    factor.factor(1e-16);
    return !(V(0.0) < factor.worst);
  }

  /// The rows of G that any of `open` holds.
  Reduced<V> reduced() {
    factors_.rows.clear();
    for (int64_t r = 0; r < m_; ++r)
      if (any(V(0.5) < held_[r])) factors_.rows.push_back(r);
    const int64_t k = p_ + int64_t(factors_.rows.size());
    const int64_t numbers = Reduced<V>::numbers(n_, k);
    if (factors_.memory.size < numbers) factors_.memory = AlignedNumbers(numbers);
    Reduced<V> K(n_, k, factors_.memory, true);
    std::copy(lane_of(problem_.Q.data, 0), lane_of(problem_.Q.data + n_ * problem_.Q.stride, 0),
              lane_of(K.Q.data, 0));
    for (int64_t j = 0; j < k; ++j) {
      const bool equality = j < p_;
      const int64_t r = equality ? j : factors_.rows[size_t(j - p_)];
      K.held[j] = equality ? V(1.0) : held_[r];
      const V* const from = equality ? problem_.A[r] : problem_.G[r];
      for (int64_t i = 0; i < n_; ++i) K.C[j][i] = K.held[j] * from[i];
      g_[j] = equality ? problem_.b[r] : problem_.h[r];
    }
    return K;
  }

  /// Solves for the rows that are held, and exchanges those whose sign is wrong.
  void polish(Mask open) {
    for (int64_t i = 0; i < n_; ++i) f_[i] = -problem_.q[i];
    for (int64_t round = 0; any(open) && round <= limits_.exchanges; ++round) {
      const Reduced<V> K = factored(open);
      const V left = K.solve(f_, g_, z_, y_, rf_, rg_, scratch_, 1);
      const int64_t k = K.C.count;
      for (int64_t r = 0; r < m_; ++r) lam_[r] = V(0.0);
      for (int64_t j = p_; j < k; ++j) lam_[factors_.rows[size_t(j - p_)]] = y_[j];
      problem_.constraints(z_, slack_);
      for (int64_t r = 0; r < m_; ++r) slack_[r] = problem_.h[r] - slack_[r];
      const V worst = min(K.outer.worst, K.inner.worst * V(1e-2));
      open = judge(open, left, left_by_row(K), worst);
    }
  }

  /// The largest of what K's solution leaves over, each row's as a share of its own terms: a large
  /// number elsewhere excuses nothing. Where the right hand side, one of them, is large enough for
  /// that the others need not be summed.
  V left_by_row(const Reduced<V>& K) {
    constexpr double kLittle = 1e-13, kTiny = 1e-300;
    const int64_t k = K.C.count;
    V share = V(0.0);
    for (int64_t i = 0; i < n_; ++i) share = max(share, abs(rf_[i]) / max(abs(f_[i]), V(kTiny)));
    for (int64_t j = 0; j < k; ++j) share = max(share, abs(rg_[j]) / max(abs(g_[j]), V(kTiny)));
    const Mask more = V(kLittle) < share;
    if (!any(more)) return share;
    V all = V(0.0);
    for (int64_t i = 0; i < n_; ++i) {
      scratch_[i] = abs(f_[i]);
      for (int64_t j = 0; j < n_; ++j) scratch_[i] = fma(abs(K.Q[i][j]), abs(z_[j]), scratch_[i]);
    }
    for (int64_t j = 0; j < k; ++j) {
      V terms = abs(g_[j]);
      for (int64_t i = 0; i < n_; ++i) {
        const V size = abs(K.C[j][i]);
        terms = fma(size, abs(z_[i]), terms);
        scratch_[i] = fma(size, abs(y_[j]), scratch_[i]);
      }
      all = max(all, abs(rg_[j]) / max(terms, V(kTiny)));
    }
    for (int64_t i = 0; i < n_; ++i) all = max(all, abs(rf_[i]) / max(scratch_[i], V(kTiny)));
    return select(more, all, share);
  }

  Reduced<V> factored(Mask open) {
    Reduced<V> K = reduced();
    K.factor();
    for (int64_t i = 0; i < count_; ++i) states_[i].factorisations += lane(open, i);
    return K;
  }

  /// What is exact now is written down; returns those whose rows were exchanged.
  Mask judge(Mask open, V left, V share, V worst) {
    const V most_lam = max(V(1e-6), largest(lam_, m_, largest(f_, n_)));
    const V reach = max(V(1e-6), largest(z_, n_));
    const auto size_of_slack = [&](int64_t r) HWY_ATTR { return max(reach, abs(problem_.h[r])); };
    const V multiplier = most_lam * V(limits_.weak);
    // Of what is large because K is nearly singular, little would be left over of anything.
    const V size = max(largest(f_, n_, largest(y_, p_, largest(lam_, m_))),
                       min(V(1e3), max(V(1e-6), largest(z_, n_))));
    const Mask regular = V(1e-10) < worst && left <= size * V(1e-11) && share <= V(limits_.exact);
    V residual = share;
    Mask wrong = V(1.0) < V(0.0), weak = wrong;
    for (int64_t r = 0; r < m_; ++r) {
      const Mask held = V(0.5) < held_[r];
      const V sign = select(held, lam_[r], slack_[r]);
      const V most = select(held, most_lam, size_of_slack(r));
      const V bound = most * V(limits_.weak);
      residual = max(residual, -sign / most);
      wrong = wrong || sign < bound * V(-limits_.wrong);
      weak = weak || abs(sign) <= bound * V(limits_.perhaps);
    }
    const Mask right = open && regular && !wrong;
    for (int64_t i = 0; i < count_; ++i) {
      if (!lane(right, i)) continue;
      QuadraticState& own = states_[i];
      own.found = lane(weak, i) ? Found::Tight : Found::Exact;
      store(&residual, 1, i, &own.residual);
      store(z_, n_, i, own.z);
      store(y_, p_, i, own.nu);
      store(lam_, m_, i, own.lam);
      store(slack_, m_, i, own.s);
      for (int64_t r = 0; r < m_; ++r) own.active[r] = *lane_of(held_ + r, i) != 0;
    }
    const Mask again = open && regular && wrong;
    for (int64_t r = 0; r < m_; ++r) {
      const Mask held = V(0.5) < held_[r];
      const V slack = size_of_slack(r) * V(limits_.weak);
      const Mask next = (held && multiplier * V(-limits_.wrong) <= lam_[r]) ||
                        (!held && slack_[r] < slack * V(-limits_.wrong));
      held_[r] = select(again, select(next, V(1.0), V(0.0)), held_[r]);
    }
    return again;
  }

  /// Lists of the numbers of G's rows that are not 0 in every sample, where they are few.
  void list_numbers(const QuadraticData* data) {
    thread_local std::vector<int64_t> begin, column;
    begin.assign(1, 0);
    column.clear();
    double pairs = 0;
    for (int64_t r = 0; r < m_; ++r) {
      for (int64_t c = 0; c < n_; ++c) {
        bool zero = true;
        for (int64_t i = 0; i < count_ && zero; ++i) zero = data[i].G[r * n_ + c] == 0;
        if (!zero) column.push_back(c);
      }
      const double own = double(int64_t(column.size()) - begin.back());
      pairs += own * own;
      begin.push_back(int64_t(column.size()));
    }
    problem_.sparse = m_ > 0 && pairs * 8 < double(m_ * n_ * n_);
    problem_.begin = begin.data();
    problem_.column = column.data();
  }

  int64_t n_, p_, m_, count_;
  const QuadraticLimits& limits_;
  QuadraticState* states_;
  ReducedFactors& factors_;
  Arena<V> arena_;
  Matrices<V> problem_;
  V *held_, *slack_, *lam_, *z_, *y_, *f_, *rf_, *scratch_, *g_, *rg_;
};

int64_t lanes() { return kLanes; }

void solve(const QuadraticShape& shape, const QuadraticData* data, int64_t count,
           const QuadraticLimits& limits, QuadraticState* states, ReducedFactors& factors) {
  factors.shape = shape;
  factors.samples = shape.n <= kLargestInLanes ? kLanes : 1;
  if (shape.n <= kLargestInLanes)
    return Group<Pack>(shape, data, count, limits, states, factors).solve();
  for (int64_t i = 0; i < count; ++i)
    Group<double>(shape, data + i, 1, limits, states + i, factors).solve();
}

template <class V>
void reduced(const ReducedFactors& factors, int64_t count, ReducedRight* right) {
  const int64_t n = factors.shape.n, p = factors.shape.p;
  const int64_t k = p + int64_t(factors.rows.size());
  const Reduced<V> K(n, k, const_cast<AlignedNumbers&>(factors.memory), false);
  Arena<V> arena(scratch(Count<V>::samples * 4 * (padded<V>(n) + padded<V>(k)) + 16 * kLanes));
  V *const f = arena.vector(n), *const x = arena.vector(n), *const rf = arena.vector(n),
           *const more = arena.vector(n);
  V *const g = arena.vector(k), *const y = arena.vector(k), *const rg = arena.vector(k);
  for (int64_t i = 0; i < count; ++i) {
    load(right[i].z, 1, n, n, f, i);
    load(right[i].nu, 1, p, p, g, i);
    for (int64_t j = p; j < k; ++j) *lane_of(g + j, i) = right[i].lam[factors.rows[size_t(j - p)]];
  }
  const V left = K.solve(f, g, x, y, rf, rg, more, 1);
  const V size = largest(f, n, largest(g, k));
  for (int64_t i = 0; i < count; ++i) {
    store(x, n, i, right[i].z);
    store(y, p, i, right[i].nu);
    std::fill(right[i].lam, right[i].lam + factors.shape.m, 0.0);
    for (int64_t j = p; j < k; ++j) {
      const double held = *(reinterpret_cast<const double*>(K.held + j) + i);
      right[i].lam[factors.rows[size_t(j - p)]] =
          held * *(reinterpret_cast<const double*>(y + j) + i);
    }
    double all, over;
    store(&size, 1, i, &all);
    store(&left, 1, i, &over);
    right[i].residual = all > 0 ? over / all : 0;
  }
}

void solve_right(const ReducedFactors& factors, int64_t count, ReducedRight* right) {
  if (factors.samples > 1) return reduced<Pack>(factors, count, right);
  reduced<double>(factors, count, right);
}

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deq::ops {
HWY_EXPORT(lanes);
HWY_EXPORT(solve);
HWY_EXPORT(solve_right);

AlignedNumbers::AlignedNumbers(int64_t numbers)
    : data(static_cast<double*>(
          hwy::AllocateAlignedBytes(size_t(numbers) * sizeof(double), nullptr, nullptr))),
      size(numbers) {}
AlignedNumbers::AlignedNumbers(AlignedNumbers&& other) noexcept
    : data(std::exchange(other.data, nullptr)), size(std::exchange(other.size, 0)) {}
AlignedNumbers& AlignedNumbers::operator=(AlignedNumbers&& other) noexcept {
  std::swap(data, other.data);
  std::swap(size, other.size);
  return *this;
}
AlignedNumbers::~AlignedNumbers() { hwy::FreeAlignedBytes(data, nullptr, nullptr); }

int64_t samples_at_once(const QuadraticShape& shape) {
  return shape.n <= 32 ? HWY_DYNAMIC_DISPATCH(lanes)() : 1;
}
void solve_quadratic(const QuadraticShape& shape, const QuadraticData* data, int64_t count,
                     const QuadraticLimits& limits, QuadraticState* states,
                     ReducedFactors& factors) {
  HWY_DYNAMIC_DISPATCH(solve)(shape, data, count, limits, states, factors);
}
void solve_reduced(const ReducedFactors& factors, int64_t count, ReducedRight* right) {
  HWY_DYNAMIC_DISPATCH(solve_right)(factors, count, right);
}
}  // namespace deq::ops
#endif
