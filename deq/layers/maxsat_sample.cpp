#include "deq/layers/maxsat_sample.h"

#include <algorithm>
#include <numbers>

namespace deq {
namespace {

constexpr double kPi = std::numbers::pi;

/// sin and cos of pi z, exact at 0, 1/2 and 1.
double sine(double z) { return std::sin(kPi * std::min(z, 1 - z)); }
double cosine(double z) { return z == 0.5 ? 0 : std::cos(kPi * z); }

/// x becomes its part in the span, of which `span` is an orthonormal basis, row by row.
void project(const std::vector<double>& span, std::vector<double>& x) {
  std::vector<double> kept(x.size(), 0.0);
  for (size_t row = 0; row < span.size(); row += x.size()) {
    double along = 0;
    for (size_t c = 0; c < x.size(); ++c) along += span[row + c] * x[c];
    for (size_t c = 0; c < x.size(); ++c) kept[c] += along * span[row + c];
  }
  x = kept;
}

}  // namespace

template <class T>
MaxsatSample<T>::MaxsatSample(const MaxsatShared<T>& shared, T* scratch) : s_(shared) {
  const int64_t rows = s_.N * s_.width;
  packed_ = scratch;
  base_ = packed_ + ops::packed_couplings(s_.N);
  V_ = base_ + rows;
  norms_ = V_ + rows;
  floor_ = norms_ + s_.N;
  rest_ = floor_ + s_.N;
}

template <class T>
bool MaxsatSample<T>::take(int64_t b) {
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

template <class T>
ops::Mixing<T> MaxsatSample<T>::problem() const {
  return {int64_t(free_.size()), s_.width, packed_, base_, floor_};
}

template <class T>
SampleEnd MaxsatSample<T>::forward(T* z_to, T* vectors, T* norms, double* objective) {
  start();
  const auto p = problem();
  const SampleEnd end = descend(p, {s_.call.how.stop, s_.call.how.memory}, V_, norms_, rest_);
  if (end.reason == Reason::NonFinite) return end;
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

template <class T>
SampleEnd MaxsatSample<T>::backward(const T* vectors, const T* norms, Reason reason, bool want_z,
                                    T* dz, T* y_to) {
  SampleEnd end{Reason::Converged};
  if (reason == Reason::NonFinite) {
    std::fill(dz, dz + s_.n, T(0));
    return kNotFinite;
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

/// u_i, component c.
template <class T>
double MaxsatSample<T>::direction(int64_t i, int64_t c) const {
  if (s_.directions) return double(s_.directions[(b_ * s_.n + i - 1) * s_.k + c]);
  return c == 1 ? s_.signs[i - 1] : 0;
}

/// Vectors of the known variables, in as many columns as they fill, and what they add to g.
template <class T>
void MaxsatSample<T>::place_known() {
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
template <class T>
void MaxsatSample<T>::pull_of_known(int64_t i, std::vector<double>& sum) {
  sum.assign(size_t(columns_), 0.0);
  if (i > 0) sum[0] = double(s_.coupling(i, 0));
  for (size_t j = 0; j < known_.size(); ++j) {
    if (known_[j] == i) continue;
    const double c_ij = double(s_.coupling(i, known_[j]));
    for (int64_t c = 0; c < columns_; ++c) sum[size_t(c)] += c_ij * at_known(j)[c];
  }
}

template <class T>
void MaxsatSample<T>::start() {
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
template <class T>
double MaxsatSample<T>::across(const T* v) const {
  double squared = 0;
  for (int64_t c = 1; c < s_.k; ++c) squared += double(v[c]) * double(v[c]);
  return std::sqrt(squared);
}
template <class T>
double MaxsatSample<T>::angle(const T* v) const {
  return std::atan2(across(v), double(v[0]));
}

/// |V^T S|^2 behind a descent.
template <class T>
double MaxsatSample<T>::energy() {
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

template <class T>
void MaxsatSample<T>::load(const T* vectors, const T* norms) {
  std::fill(V_, V_ + int64_t(free_.size()) * s_.width, T(0));
  for (size_t f = 0; f < free_.size(); ++f) {
    const T* v = vectors + (free_[f] - 1) * s_.k;
    std::copy(v, v + s_.k, V_ + int64_t(f) * s_.width);
    norms_[f] = norms[free_[f] - 1];
  }
}

template <class T>
bool MaxsatSample<T>::dropped(Reason reason) const {
  if (reason != Reason::NotUnique || s_.call.how.silent == Silent::Hold) return false;
  for (size_t f = 0; f < free_.size(); ++f) {
    if (norms_[f] == T(0) && s_.coupling(free_[f], free_[f]) > T(0)) return true;
  }
  return false;
}

/// b_i = dz_i / pi t_i, t_i the tangent at v_i towards e_0; false where all of it is 0.
template <class T>
bool MaxsatSample<T>::right_side(const T* dz, T* b) {
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

template <class T>
bool MaxsatSample<T>::inside(int64_t i) const {
  return std::min(double(z(i)), 1 - double(z(i))) > s_.call.how.saturated;
}

/// What y means to the known variables: dz_j -= (sum_i c_ij y_i) . dv_j / dz_j. At 0 and 1 the
/// free vectors may be turned about all that holds them, e_0 and the u_i of inputs between 0 and
/// 1: only what lies in the span of these has a derivative there.
template <class T>
void MaxsatSample<T>::pass_on(const T* y, T* dz) {
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
template <class T>
std::vector<double> MaxsatSample<T>::held_directions() const {
  std::vector<double> span, u(static_cast<size_t>(columns_));
  if (std::all_of(known_.begin(), known_.end(), [&](int64_t j) { return inside(j); })) return span;
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

template class MaxsatSample<float>;
template class MaxsatSample<double>;

}  // namespace deq
