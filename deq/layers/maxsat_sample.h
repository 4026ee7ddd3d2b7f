// One sample of MAXSAT's relaxation at a time, in the scratch memory of a thread: from its row of z
// to the kernels and back.
#pragma once

#include <cmath>
#include <vector>

#include "deq/layers/maxsat_samples.h"
#include "deq/layers/mixing_solve.h"
#include "deq/ops/mixing_kernel.h"

namespace deq {

/// What all samples of a call have in common.
template <class T>
struct MaxsatShared {
  const MaxsatCall& call;
  int64_t N, n, k, width;  // variables with auxiliary ones, without; the rank, and padded
  const T *C, *z, *warm, *directions;
  const bool* known;
  const double *starts, *signs;
  double scale = 1, diagonal = 0;  // of C: to about 1; the sum of it
  std::vector<double> row_sums;    // (1 + N), sum_j |c_ij|

  explicit MaxsatShared(const MaxsatCall& c)
      : call(c),
        N(c.C.size(0) - 1),
        n(c.z.size(1)),
        k(c.starts.size(1)),
        width(ops::mixing_width<T>(k)),
        C(c.C.data_ptr<T>()),
        z(c.z.data_ptr<T>()),
        warm(c.warm.defined() ? c.warm.data_ptr<T>() : nullptr),
        directions(c.directions.defined() ? c.directions.data_ptr<T>() : nullptr),
        known(c.known.data_ptr<bool>()),
        starts(c.starts.data_ptr<double>()),
        signs(c.signs.data_ptr<double>()) {}

  T coupling(int64_t i, int64_t j) const { return C[i * (N + 1) + j]; }
  int64_t solve_scratch() const {
    return std::max(descent_scratch(N, width, call.how.memory),
                    adjoint_scratch(N, width) + 2 * N * width);
  }
  int64_t scratch() const {
    return ops::packed_couplings(N) + 2 * N * width + 2 * N + solve_scratch();
  }

  /// False where C is not finite.
  bool look_at_C() {
    double largest = 0, total = 0;
    row_sums.resize(size_t(N + 1));
    for (int64_t i = 0; i <= N; ++i) {
      double sum = 0;
      for (int64_t j = 0; j <= N; ++j) sum += std::abs(double(coupling(i, j)));
      largest = std::max(largest, sum);
      total += sum;
      diagonal += double(coupling(i, i));
      row_sums[size_t(i)] = sum;
    }
    if (largest > 0 && std::isfinite(largest)) scale = std::exp2(-std::ilogb(largest));
    return std::isfinite(total);
  }
};

/// Takes one sample after the other, in `scratch` memory of MaxsatShared::scratch() numbers; what
/// it has packed for one serves the next, where that has the same free variables.
template <class T>
class MaxsatSample {
 public:
  MaxsatSample(const MaxsatShared<T>& shared, T* scratch);

  /// The sample that is next. False where a known z is not finite.
  bool take(int64_t b);

  /// Descends and writes the sample's rows of what is found, over zeros, and over z of 0.5; nothing
  /// where what comes out is not finite.
  SampleEnd forward(T* z_to, T* vectors, T* norms, double* objective);

  /// Solves the adjoint and writes y transposed, (k, 1 + N), over zeros. dz is that of z, and
  /// becomes that of the input: free variables have none, known ones their copy's and, with
  /// `want_z`, what y passes on.
  SampleEnd backward(const T* vectors, const T* norms, Reason reason, bool want_z, T* dz, T* y_to);

 private:
  ops::Mixing<T> problem() const;
  T z(int64_t i) const { return s_.z[b_ * s_.n + i - 1]; }
  double* at_known(size_t j) { return &at_known_[j * size_t(columns_)]; }
  double direction(int64_t i, int64_t c) const;
  void place_known();
  void pull_of_known(int64_t i, std::vector<double>& sum);
  void start();
  double across(const T* v) const;
  double angle(const T* v) const;
  double energy();
  void load(const T* vectors, const T* norms);
  bool dropped(Reason reason) const;
  bool right_side(const T* dz, T* b);
  bool inside(int64_t i) const;
  void pass_on(const T* y, T* dz);
  std::vector<double> held_directions() const;

  const MaxsatShared<T>& s_;
  T *packed_, *base_, *V_, *norms_, *floor_, *rest_;
  int64_t b_ = 0, columns_ = 2;  // that known vectors fill
  bool packed_once_ = false;
  std::vector<int64_t> free_, known_;  // rows of C
  std::vector<double> at_known_;       // (known, columns)
};

}  // namespace deq
