#include "deq/layers/mixing_solve.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "deq/ops/mixing_kernel.h"
#include "deq/ops/rows_simd.h"

namespace deq {
namespace {

constexpr int64_t kMostMemory = 16;
constexpr double kWorse = 2;
constexpr double kLost = 10;  // times its least, a residual is not waited for any more

/// Of Anderson's Gram matrix, whose products are of T.
template <class T>
constexpr double kRidge = sizeof(T) == sizeof(float) ? 1e-6 : 1e-12;

/// argmin a^T H a + ridge sum_i a_i^2 H_ii with sum a = 1, for the m x m H whose rows are
/// kMostMemory numbers apart; false without a finite one. In units of the residuals' norms, by
/// Cholesky.
bool least_mixture(const double* H, int64_t m, double ridge, double* a) {
  double L[kMostMemory][kMostMemory], scale[kMostMemory];
  for (int64_t i = 0; i < m; ++i) {
    const double square = H[i * kMostMemory + i];
    if (!(square > 0) || !std::isfinite(square)) return false;
    scale[i] = 1 / std::sqrt(square);
  }
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double sum = H[i * kMostMemory + j] * scale[i] * scale[j] + (i == j ? ridge : 0);
      for (int64_t k = 0; k < j; ++k) sum -= L[i][k] * L[j][k];
      if (i != j) {
        L[i][j] = sum / L[j][j];
      } else if (sum > 0) {
        L[i][i] = std::sqrt(sum);
      } else {
        return false;
      }
    }
    a[i] = scale[i];
    for (int64_t k = 0; k < i; ++k) a[i] -= L[i][k] * a[k];
    a[i] /= L[i][i];
  }
  double total = 0;
  for (int64_t i = m - 1; i >= 0; --i) {
    for (int64_t k = i + 1; k < m; ++k) a[i] -= L[k][i] * a[k];
    a[i] /= L[i][i];
  }
  for (int64_t i = 0; i < m; ++i) total += a[i] *= scale[i];
  for (int64_t i = 0; i < m; ++i) a[i] /= total;
  return std::isfinite(total) && total != 0;
}

/// The last sweeps, and the point that Anderson makes of them.
template <class T>
class SweepMixer {
 public:
  SweepMixer(const ops::Mixing<T>& problem, int64_t memory, T* scratch)
      : problem_(problem), memory_(std::min(memory, kMostMemory)) {
    const int64_t size = problem.numbers();
    for (int64_t k = 0; k < memory_; ++k, scratch += 2 * size) {
      images_[k] = scratch;
      moved_[k] = scratch + size;
    }
  }

  /// Where the next sweep shall write what it moves.
  T* next_moved() { return moved_[slot()]; }

  /// V, which a sweep has made, becomes the point to go on from. `size` is |moved|.
  void mix(double size, T* V) {
    if (mixed_ && size > kWorse * best_) begin_anew();
    const int64_t s = slot(), numbers = problem_.numbers();
    best_ = std::min(best_, size);
    held_ = std::min(held_ + 1, memory_);
    ++count_;
    std::copy(V, V + numbers, images_[s]);
    double products[kMostMemory], a[kMostMemory];
    ops::simd_dots(moved_, held_, moved_[s], numbers, 0, 1, products);
    for (int64_t k = 0; k < held_; ++k)
      gram_[s * kMostMemory + k] = gram_[k * kMostMemory + s] = products[k];
    mixed_ = plain_ == 0 && held_ > 1 && least_mixture(gram_, held_, kRidge<T>, a);
    plain_ = std::max<int64_t>(0, plain_ - 1);
    if (!mixed_) return;
    ops::simd_mix(a, images_, held_, nullptr, numbers, 0, 1, V);
    ops::unit_rows(problem_.n, problem_.width, images_[s], V);
  }

 private:
  int64_t slot() const { return count_ % memory_; }

  /// Only what the latest sweep moved is kept, as the first.
  void begin_anew() {
    std::swap(moved_[slot()], moved_[0]);
    count_ = held_ = 0;
    plain_ = ++begun_;
    best_ = std::numeric_limits<double>::infinity();
  }

  const ops::Mixing<T>& problem_;
  int64_t memory_, count_ = 0, held_ = 0;
  int64_t begun_ = 0, plain_ = 0;  // how often it began anew; plain sweeps to come
  bool mixed_ = false;
  double best_ = std::numeric_limits<double>::infinity();
  double gram_[kMostMemory * kMostMemory] = {};
  T *images_[kMostMemory] = {}, *moved_[kMostMemory] = {};
};

bool met(double residual, const StopRule& stop) {
  return residual <= std::max(stop.rel_tol, stop.abs_tol);
}

}  // namespace

int64_t descent_scratch(int64_t n, int64_t width, int64_t memory) {
  return (2 * std::clamp<int64_t>(memory, 1, kMostMemory) * n + ops::kMixingBlock + n) * width;
}

int64_t adjoint_scratch(int64_t n, int64_t width) { return 3 * n * width; }

template <class T>
SampleEnd descend(const ops::Mixing<T>& p, const Descent& how, T* V, T* norms, T* scratch) {
  SampleEnd end;
  if (p.n == 0) return {Reason::Converged};
  T *block = scratch, *G = block + ops::kMixingBlock * p.width, *past = G + p.numbers();
  SweepMixer<T> mixer(p, std::max<int64_t>(how.memory, 1), past);
  int64_t moving = p.n;
  while (end.steps < how.stop.max_steps) {
    const double size = std::sqrt(ops::mixing_sweep(p, V, mixer.next_moved(), block));
    ++end.steps;
    const bool last = end.steps == how.stop.max_steps;
    if (last || met(size / std::sqrt(double(moving)), how.stop)) {
      ops::mixing_product(p, V, p.base, G);
      const double total = ops::mixing_residual(p, V, G, norms);
      end.silent = std::count(norms, norms + p.n, T(0));
      moving = std::max<int64_t>(1, p.n - end.silent);
      end.residual = std::sqrt(total / double(moving));
      if (last || met(end.residual, how.stop)) break;
    }
    if (how.memory > 0) mixer.mix(size, V);
  }
  if (!std::isfinite(end.residual)) {
    end.reason = Reason::NonFinite;
  } else if (end.silent > 0) {
    end.reason = Reason::NotUnique;
  } else if (met(end.residual, how.stop)) {
    end.reason = Reason::Converged;
  }
  return end;
}

template <class T>
SampleEnd mixing_adjoint(const ops::Mixing<T>& p, const StopRule& stop, const T* V, const T* norms,
                         T* b, T* y, T* scratch) {
  const int64_t n = p.n, width = p.width, size = p.numbers();
  T *direction = scratch, *image = direction + size, *best = image + size;
  SampleEnd end;
  for (T* zeros : {y, direction, best}) std::fill(zeros, zeros + size, T(0));
  double scaled = 0;
  const double first = ops::conjugate_step(n, width, 0, direction, direction, norms, y, b, scaled);
  const double goal = std::max(stop.rel_tol * std::sqrt(first), stop.abs_tol);
  double left = first, least = first, grown = 0;
  while (std::sqrt(left) > goal && end.steps < stop.max_steps) {
    ops::conjugate_direction(n, width, grown, b, norms, direction);
    ops::mixing_product(p, direction, nullptr, image);
    const double curvature = ops::tangent_rows(n, width, V, norms, direction, image);
    if (!(curvature > 0)) break;
    const double before = scaled;
    left = ops::conjugate_step(n, width, before / curvature, direction, image, norms, y, b, scaled);
    grown = scaled / before;
    ++end.steps;
    if (left < least) {
      least = left;
      std::copy(y, y + size, best);
    } else if (!(left < kLost * kLost * least)) {
      break;
    }
  }
  std::copy(best, best + size, y);
  end.residual = first > 0 ? std::sqrt(least / first) : 0;
  if (!std::isfinite(first)) {
    end = kNotFinite;
    std::fill(y, y + size, std::numeric_limits<T>::quiet_NaN());
  } else if (std::sqrt(least) <= goal) {
    end.reason = Reason::Converged;
  }
  return end;
}

template SampleEnd descend(const ops::Mixing<float>&, const Descent&, float*, float*, float*);
template SampleEnd descend(const ops::Mixing<double>&, const Descent&, double*, double*, double*);
template SampleEnd mixing_adjoint(const ops::Mixing<float>&, const StopRule&, const float*,
                                  const float*, float*, float*, float*);
template SampleEnd mixing_adjoint(const ops::Mixing<double>&, const StopRule&, const double*,
                                  const double*, double*, double*, double*);

}  // namespace deq
