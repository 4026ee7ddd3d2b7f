#include "deq/layers/maxsat_samples.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "deq/layers/mixing_solve.h"
#include "deq/ops/mixing_kernel.h"
#include "deq/ops/tasks.h"
#include "deq/ops/weight_gradient.h"

namespace deq {
namespace {

using at::Tensor;
constexpr double kPi = std::numbers::pi;

/// What all samples of a call have in common.
template <class T>
struct Shared {
  const MaxsatCall& call;
  int64_t N, n, k, width;  // variables with auxiliary ones, without; the rank, and padded
  const T *C, *z, *warm, *directions;
  const bool* known;
  const double *starts, *signs;
  double scale = 1, diagonal = 0;  // of C: to about 1; the sum of it
  std::vector<double> row_sums;    // (1 + N), sum_j |c_ij|

  explicit Shared(const MaxsatCall& c)
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

/// sin and cos of pi z, exact at 0, 1/2 and 1.
double sine(double z) { return std::sin(kPi * std::min(z, 1 - z)); }
double cosine(double z) { return z == 0.5 ? 0 : std::cos(kPi * z); }

/// One sample after the other in the scratch memory of a thread.
template <class T>
class Sample {
 public:
  Sample(const Shared<T>& shared, T* scratch) : s_(shared) {
    const int64_t rows = s_.N * s_.width;
    packed_ = scratch;
    base_ = packed_ + ops::packed_couplings(s_.N);
    V_ = base_ + rows;
    norms_ = V_ + rows;
    floor_ = norms_ + s_.N;
    rest_ = floor_ + s_.N;
  }

  /// False where a known z is not finite.
  bool take(int64_t b) {
    b_ = b;
    std::vector<int64_t> free, known;
    bool finite = true;
    for (int64_t i = 1; i <= s_.N; ++i) {
      const bool is_known = i <= s_.n && s_.known[b * s_.n + i - 1];
      (is_known ? known : free).push_back(i);
      if (is_known) finite = finite && std::isfinite(double(z(i)));
    }
    if (!packed_once_ || free != free_) {
      ops::pack_couplings(s_.C, s_.N + 1, free, T(s_.scale), packed_);
      packed_once_ = true;
    }
    free_ = std::move(free);
    known_ = std::move(known);
    for (size_t f = 0; f < free_.size(); ++f)
      floor_[f] = T(s_.call.how.silence * s_.scale * s_.row_sums[size_t(free_[f])]);
    if (finite) place_known();
    return finite;
  }

  ops::Mixing<T> problem() const {
    return {int64_t(free_.size()), s_.width, packed_, base_, floor_};
  }

  /// Descends and writes the sample's rows of what is found.
  SampleEnd forward(T* z_to, T* vectors, T* norms, double* objective) {
    start();
    const auto p = problem();
    const SampleEnd end = descend(p, {s_.call.how.stop, s_.call.how.memory}, V_, norms_, rest_);
    std::fill(norms, norms + s_.N, T(0));
    for (size_t f = 0; f < free_.size(); ++f) {
      const T* v = V_ + int64_t(f) * s_.width;
      std::copy(v, v + s_.k, vectors + (free_[f] - 1) * s_.k);
      norms[free_[f] - 1] = norms_[f];
      if (free_[f] <= s_.n) z_to[free_[f] - 1] = T(1 - angle(v) / kPi);
    }
    for (size_t j = 0; j < known_.size(); ++j) {
      T* v = vectors + (known_[j] - 1) * s_.k;
      for (int64_t c = 0; c < s_.k; ++c) v[c] = c < columns_ ? T(at_known(j)[c]) : T(0);
      z_to[known_[j] - 1] = z(known_[j]);
    }
    *objective = energy();
    return end;
  }

  /// Solves the adjoint and writes y transposed, (k, 1 + N), over zeros; dz is that of z, and
  /// becomes that of the input, of which free variables have none.
  SampleEnd backward(const T* vectors, const T* norms, Reason reason, bool want_z, T* dz, T* y_to) {
    SampleEnd end{Reason::Converged};
    if (reason == Reason::NonFinite) {
      std::fill(dz, dz + s_.n, T(0));
      return {Reason::NonFinite};
    }
    load(vectors, norms);
    const auto p = problem();
    T *b = rest_ + adjoint_scratch(s_.N, s_.width), *y = b + s_.N * s_.width;
    const bool any = !dropped(reason) && right_side(dz, b);
    for (const int64_t i : free_) {
      if (i <= s_.n) dz[i - 1] = T(0);
    }
    if (!any) return end;
    end = mixing_adjoint(p, s_.call.how.adjoint, V_, norms_, b, y, rest_);
    for (size_t f = 0; f < free_.size(); ++f) {
      for (int64_t c = 0; c < s_.k; ++c)
        y_to[c * (s_.N + 1) + free_[f]] = T(s_.scale) * y[int64_t(f) * s_.width + c];
    }
    if (want_z) pass_on(y, dz);
    return end;
  }

 private:
  T z(int64_t i) const { return s_.z[b_ * s_.n + i - 1]; }
  double* at_known(size_t j) { return &at_known_[j * size_t(columns_)]; }

  /// u_i, component c.
  double direction(int64_t i, int64_t c) const {
    if (s_.directions) return double(s_.directions[(b_ * s_.n + i - 1) * s_.k + c]);
    return c == 1 ? s_.signs[i - 1] : 0;
  }

  /// Vectors of the known variables, in as many columns as they fill, and what they add to g.
  void place_known() {
    columns_ = s_.directions ? s_.k : 2;
    at_known_.assign(known_.size() * size_t(columns_), 0.0);
    for (size_t j = 0; j < known_.size(); ++j) {
      const double zj = double(z(known_[j])), sin = sine(zj);
      for (int64_t c = 0; c < columns_; ++c) at_known(j)[c] = sin * direction(known_[j], c);
      at_known(j)[0] -= cosine(zj);
    }
    std::vector<double> sum;
    for (size_t f = 0; f < free_.size(); ++f) {
      pull_of_known(free_[f], sum);
      T* base = base_ + int64_t(f) * s_.width;
      for (int64_t c = 0; c < s_.width; ++c)
        base[c] = c < columns_ ? T(s_.scale * sum[size_t(c)]) : T(0);
    }
  }

  /// sum of c_ij v_j over truth and the known variables j != i.
  void pull_of_known(int64_t i, std::vector<double>& sum) {
    sum.assign(size_t(columns_), 0.0);
    if (i > 0) sum[0] = double(s_.coupling(i, 0));
    for (size_t j = 0; j < known_.size(); ++j) {
      if (known_[j] == i) continue;
      const double c_ij = double(s_.coupling(i, known_[j]));
      for (int64_t c = 0; c < columns_; ++c) sum[size_t(c)] += c_ij * at_known(j)[c];
    }
  }

  void start() {
    std::fill(V_, V_ + int64_t(free_.size()) * s_.width, T(0));
    for (size_t f = 0; f < free_.size(); ++f) {
      T* v = V_ + int64_t(f) * s_.width;
      const int64_t row = free_[f] - 1;
      const double* own = s_.starts + row * s_.k;
      const T* warm = s_.warm ? s_.warm + (b_ * s_.N + row) * s_.k : nullptr;
      double squared = 0;
      for (int64_t c = 0; warm && c < s_.k; ++c) squared += double(warm[c]) * double(warm[c]);
      const bool given = squared > 1e-12 && std::isfinite(squared);
      const double scale = given ? 1 / std::sqrt(squared) : 1;
      for (int64_t c = 0; c < s_.k; ++c) v[c] = T(given ? scale * double(warm[c]) : own[c]);
    }
  }

  /// From e_0 to v, by both its parts: exact near 0 and pi as well.
  double across(const T* v) const {
    double squared = 0;
    for (int64_t c = 1; c < s_.k; ++c) squared += double(v[c]) * double(v[c]);
    return std::sqrt(squared);
  }
  double angle(const T* v) const { return std::atan2(across(v), double(v[0])); }

  /// |V^T S|^2 behind a descent.
  double energy() {
    double total = s_.diagonal;
    const auto p = problem();
    for (int64_t f = 0; f < p.n; ++f) {
      // v_i . g_i is -|g_i| at a minimum only.
      const T *v = V_ + f * s_.width, *base = base_ + f * s_.width;
      double own = 0;
      for (int64_t c = 0; c < s_.k; ++c) own += double(v[c]) * double(base[c]);
      total += own / s_.scale;
    }
    T* G = rest_;
    ops::mixing_product(p, V_, base_, G);
    for (int64_t f = 0; f < p.n; ++f) {
      double own = 0;
      for (int64_t c = 0; c < s_.k; ++c)
        own += double(V_[f * s_.width + c]) * double(G[f * s_.width + c]);
      total += own / s_.scale;
    }
    std::vector<double> sum;
    pull_of_known(0, sum);
    total += sum[0];
    for (size_t j = 0; j < known_.size(); ++j) {
      pull_of_known(known_[j], sum);
      for (int64_t c = 0; c < columns_; ++c) total += sum[size_t(c)] * at_known(j)[c];
    }
    return total;
  }

  void load(const T* vectors, const T* norms) {
    std::fill(V_, V_ + int64_t(free_.size()) * s_.width, T(0));
    for (size_t f = 0; f < free_.size(); ++f) {
      const T* v = vectors + (free_[f] - 1) * s_.k;
      std::copy(v, v + s_.k, V_ + int64_t(f) * s_.width);
      norms_[f] = norms[free_[f] - 1];
    }
  }

  bool dropped(Reason reason) const {
    if (reason != Reason::NotUnique || s_.call.how.silent == Silent::Hold) return false;
    for (size_t f = 0; f < free_.size(); ++f) {
      if (norms_[f] == T(0) && s_.coupling(free_[f], free_[f]) > T(0)) return true;
    }
    return false;
  }

  /// b_i = dz_i / pi t_i, t_i the tangent at v_i towards e_0; false where all of it is 0.
  bool right_side(const T* dz, T* b) {
    bool any = false;
    for (size_t f = 0; f < free_.size(); ++f) {
      const T* v = V_ + int64_t(f) * s_.width;
      T* row = b + int64_t(f) * s_.width;
      std::fill(row, row + s_.width, T(0));
      const int64_t i = free_[f];
      if (i > s_.n || dz[i - 1] == T(0) || norms_[f] == T(0)) continue;
      const double s = across(v), c = double(v[0]);
      if (std::atan2(s, std::abs(c)) <= kPi * s_.call.how.saturated) continue;
      const double size = double(dz[i - 1]) / kPi / std::hypot(s, c);
      row[0] = T(size * s);
      for (int64_t x = 1; x < s_.k; ++x) row[x] = T(-size * c / s * double(v[x]));
      any = true;
    }
    return any;
  }

  bool inside(int64_t i) const {
    return std::min(double(z(i)), 1 - double(z(i))) > s_.call.how.saturated;
  }

  /// What y means to the known variables: dz_j -= (sum_i c_ij y_i) . dv_j / dz_j. At 0 and 1 the
  /// free vectors may be turned about all that holds them, e_0 and the u_i of inputs between 0 and
  /// 1: only what lies in the span of these has a derivative there.
  void pass_on(const T* y, T* dz) {
    const std::vector<double> span = held_directions();
    std::vector<double> pull(static_cast<size_t>(columns_));
    for (const int64_t j : known_) {
      std::fill(pull.begin(), pull.end(), 0.0);
      for (size_t f = 0; f < free_.size(); ++f) {
        const double c_ij = double(s_.coupling(j, free_[f])) * s_.scale;
        for (int64_t c = 0; c < columns_; ++c)
          pull[size_t(c)] += c_ij * double(y[int64_t(f) * s_.width + c]);
      }
      const double zj = double(z(j));
      if (!inside(j)) project(span, pull);
      double turned = 0;
      for (int64_t c = 1; c < columns_; ++c) turned += pull[size_t(c)] * direction(j, c);
      dz[j - 1] -= T(kPi * (sine(zj) * pull[0] + cosine(zj) * turned));
    }
  }

  /// An orthonormal basis, row by row, of the u_i of known variables between 0 and 1.
  std::vector<double> held_directions() const {
    std::vector<double> span, u(static_cast<size_t>(columns_));
    if (std::all_of(known_.begin(), known_.end(), [&](int64_t j) { return inside(j); }))
      return span;
    for (const int64_t j : known_) {
      if (!inside(j)) continue;
      for (int64_t c = 0; c < columns_; ++c) u[size_t(c)] = direction(j, c);
      for (int twice = 0; twice < 2; ++twice) {
        for (size_t row = 0; row < span.size(); row += u.size()) {
          double along = 0;
          for (size_t c = 0; c < u.size(); ++c) along += span[row + c] * u[c];
          for (size_t c = 0; c < u.size(); ++c) u[c] -= along * span[row + c];
        }
      }
      double squared = 0;
      for (const double x : u) squared += x * x;
      if (squared < 1e-12) continue;
      for (const double x : u) span.push_back(x / std::sqrt(squared));
      if (span.size() >= u.size() * (u.size() - 1)) break;
    }
    return span;
  }

  static void project(const std::vector<double>& span, std::vector<double>& x) {
    std::vector<double> kept(x.size(), 0.0);
    for (size_t row = 0; row < span.size(); row += x.size()) {
      double along = 0;
      for (size_t c = 0; c < x.size(); ++c) along += span[row + c] * x[c];
      for (size_t c = 0; c < x.size(); ++c) kept[c] += along * span[row + c];
    }
    x = kept;
  }

  const Shared<T>& s_;
  T *packed_, *base_, *V_, *norms_, *floor_, *rest_;
  int64_t b_ = 0, columns_ = 2;
  bool packed_once_ = false;
  std::vector<int64_t> free_, known_;  // rows of C
  std::vector<double> at_known_;       // (known, columns)
};

/// Samples that one thread takes together: small ones share what is made for their free set.
template <class T>
int64_t chunk_of(const Shared<T>& shared) {
  return shared.N <= 64 ? 16 : 1;
}

/// f(sample, b) for all samples, over the threads.
template <class T, class F>
void for_each_sample(const Shared<T>& shared, int64_t batch, const F& f) {
  const int64_t chunk = chunk_of(shared);
  ops::run_tasks<T>((batch + chunk - 1) / chunk, shared.scratch(), [&](int64_t task, T* scratch) {
    Sample<T> sample(shared, scratch);
    for (int64_t b = task * chunk; b < std::min(batch, (task + 1) * chunk); ++b) f(sample, b);
  });
}

/// Rows of a report, filled by several threads.
struct Rows {
  Report report;
  uint8_t* reason;
  double* residual;
  int64_t* steps;

  Rows(int64_t batch, const StopRule& stop) {
    report.reason = at::empty({batch}, at::kByte);
    report.residual = at::zeros({batch}, at::kDouble);
    report.steps = at::zeros({batch}, at::kLong);
    report.max_steps = stop.max_steps;
    report.rel_tol = stop.rel_tol;
    report.abs_tol = stop.abs_tol;
    reason = report.reason.data_ptr<uint8_t>();
    residual = report.residual.data_ptr<double>();
    steps = report.steps.data_ptr<int64_t>();
  }
  void set(int64_t b, const SampleEnd& end) {
    reason[b] = uint8_t(end.reason);
    residual[b] = end.residual;
    steps[b] = end.steps;
  }
  Report take() {
    report.evaluations = report.steps.numel() ? report.steps.max().item<int64_t>() : 0;
    return std::move(report);
  }
};

template <class T>
MaxsatFound forward(const MaxsatCall& call) {
  Shared<T> shared(call);
  const int64_t B = call.z.size(0), N = shared.N, k = shared.k;
  const auto type = call.C.options();
  MaxsatFound found;
  found.finite = shared.look_at_C();
  found.scale = shared.scale;
  found.z = at::full({B, shared.n}, 0.5, type);
  found.vectors = at::zeros({B, N, k}, type);
  found.norms = at::zeros({B, N}, type);
  found.objective = at::zeros({B}, at::kDouble);
  Rows rows(B, call.how.stop);
  for_each_sample<T>(shared, B, [&](Sample<T>& sample, int64_t b) {
    if (!sample.take(b) || !found.finite) return rows.set(b, {Reason::NonFinite});
    rows.set(b, sample.forward(
                    found.z.data_ptr<T>() + b * shared.n, found.vectors.data_ptr<T>() + b * N * k,
                    found.norms.data_ptr<T>() + b * N, found.objective.data_ptr<double>() + b));
  });
  found.report = rows.take();
  return found;
}

/// (B, k, 1 + N), with truth; 0 for free variables that stand in no clause, whose place means
/// nothing.
template <class T>
Tensor all_vectors(const Shared<T>& shared, const Tensor& vectors) {
  const int64_t B = vectors.size(0), N = shared.N;
  const Tensor v = at::zeros({B, shared.k, N + 1}, vectors.options());
  v.narrow(2, 1, N).copy_(vectors.transpose(1, 2));
  v.select(1, 0).select(1, 0).fill_(1);
  for (int64_t i = 1; i <= N; ++i) {
    if (shared.coupling(i, i) != T(0)) continue;
    const Tensor own = v.select(2, i);
    if (i > shared.n) {
      own.zero_();
    } else {
      own.mul_(shared.call.known.select(1, i - 1).unsqueeze(1));
    }
  }
  return v;
}

template <class T>
MaxsatGradients backward(const MaxsatCall& call, const MaxsatFound& found, const Tensor& dz,
                         bool want_C, bool want_z) {
  Shared<T> shared(call);
  shared.look_at_C();
  const int64_t B = call.z.size(0), N = shared.N, k = shared.k;
  const Tensor y = at::zeros({B, k, N + 1}, call.C.options());
  const Tensor passed = dz.clone();
  Rows rows(B, call.how.adjoint);
  const uint8_t* reasons = found.report.reason.data_ptr<uint8_t>();
  for_each_sample<T>(shared, B, [&](Sample<T>& sample, int64_t b) {
    const Reason reason = found.finite ? Reason(reasons[b]) : Reason::NonFinite;
    if (reason != Reason::NonFinite) sample.take(b);
    rows.set(
        b, sample.backward(found.vectors.data_ptr<T>() + b * N * k,
                           found.norms.data_ptr<T>() + b * N, reason, want_z,
                           passed.data_ptr<T>() + b * shared.n, y.data_ptr<T>() + b * k * (N + 1)));
  });
  MaxsatGradients gradients;
  gradients.report = rows.take();
  if (want_z) gradients.z = passed;
  if (!want_C) return gradients;
  const Tensor v = all_vectors<T>(shared, found.vectors);
  gradients.C = ops::weight_gradient(y.view({B * k, N + 1}), v.view({B * k, N + 1})).neg_();
  return gradients;
}

}  // namespace

MaxsatFound maxsat_forward(const MaxsatCall& call) {
  return call.C.scalar_type() == at::kFloat ? forward<float>(call) : forward<double>(call);
}

MaxsatGradients maxsat_backward(const MaxsatCall& call, const MaxsatFound& found, const Tensor& dz,
                                bool want_C, bool want_z) {
  return call.C.scalar_type() == at::kFloat ? backward<float>(call, found, dz, want_C, want_z)
                                            : backward<double>(call, found, dz, want_C, want_z);
}

}  // namespace deq
