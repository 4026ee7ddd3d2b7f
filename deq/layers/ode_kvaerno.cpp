// Kvaerno's ESDIRK pair 5(4), BIT 44 (2004): k_0 = f(t, y) and, for the other stages,
//
//     k_i = f(t + c_i h, y + h sum_{j<=i} a_ij k_j),     a_ii = gamma,
//
// by Newton's method with one factorisation a step. The last stage is y(t + h). The extension is
// ours: of order 4 by the order conditions, with the slopes k_0 and k_6 at the ends, and of least
// norm among those.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>

#include "deq/base/epsilon.h"
#include "deq/layers/ode_stiff.h"

namespace deq::ode {
namespace {

using at::Tensor;

constexpr double kGamma = 0.26;
constexpr int kStages = 7;
constexpr double kNodes[kStages] = {
    0, 0.52, 1.230333209967908, 0.8957659843500759, 0.43639360985864756, 1, 1};
const std::vector<std::vector<double>>& table_a() {
  static const std::vector<std::vector<double>> values = {
      {},
      {0.26},
      {0.13, 0.84033320996790809},
      {0.22371961478320505, 0.47675532319799699, -0.06470895363112615},
      {0.16648564323248321, 0.10450018841591720, 0.03631482272098715, -0.13090704451073998},
      {0.13855640231268224, 0, -0.04245337201752043, 0.02446657898003141, 0.61943039072480676},
      {0.13659751177640291, 0, -0.05496908796538376, -0.04118626728321046, 0.62993304899016403,
       0.06962479448202728}};
  return values;
}

/// k_i to begin with, from the stages before.
const std::vector<std::vector<double>>& table_predictor() {
  static const std::vector<std::vector<double>> values = {
      {},
      {1},
      {-1.366025403784441, 2.3660254037844357},
      {-0.19650552613122207, 0.8113579546496623, 0.38514757148155954},
      {0.10375304369958693, 0.937994698066431, -0.04174774176601781, 0},
      {-0.17281112873898072, 0.6235784481025847, 0.5492326806363959, 0, 0},
      {0.13855640231268224, 0, -0.04245337201752043, 0.02446657898003141, 0.61943039072480676,
       0.26}};
  return values;
}

const std::vector<double>& table_b() {
  static const std::vector<double> values = {
      0.13659751177640291, 0,     -0.05496908796538376, -0.04118626728321046, 0.62993304899016403,
      0.06962479448202728, kGamma};
  return values;
}

const std::vector<double>& table_error() {
  static const std::vector<double> values = {0.13659751177640291 - 0.13855640231268224,
                                             0,
                                             -0.05496908796538376 + 0.04245337201752043,
                                             -0.04118626728321046 - 0.02446657898003141,
                                             0.62993304899016403 - 0.61943039072480676,
                                             0.06962479448202728 - kGamma,
                                             kGamma};
  return values;
}

const std::vector<std::vector<double>>& table_dense() {
  static const std::vector<std::vector<double>> values = {
      {1.0, -2.0720375887956823, 1.6904652246969756, -0.48183012412489},
      {0.0, 0.0, 0.0, 0.0},
      {0.0, 0.8427243190616387, -1.9053249899848375, 1.0076315829578095},
      {0.0, -0.6665857136423003, 1.168426358151638, -0.5430269117925728},
      {0.0, 3.2569288143993593, -3.994125432838051, 1.3671296674288576},
      {0.0, -0.6050255205696791, 1.488550219067467, -0.8138999040157604},
      {0.0, -0.7560043104533336, 1.5520086209068005, -0.5360043104534391}};
  return values;
}

constexpr int kIterations = 12;
constexpr double kSmall = 1e-3;   // of an iterate's error, in units of what is allowed
constexpr double kRoundings = 4;  // of y, that an iterate's error may be whatever kSmall says
constexpr double kFailed = 1e4;   // the error of a step whose stages are not found

class Kvaerno : public Stepper {
 public:
  Kvaerno(const Field& f, const ops::Allowance& allowed) : f_(f), allowed_(allowed) {}

  std::vector<double> attempt(Work& work) override {
    work.scale = work.h;
    if (!known_.defined()) {
      known_ = at::zeros_like(work.y);
      change_ = at::zeros_like(work.y);
    }
    at_.refresh(work, f_);
    at_.factor(work, kGamma);
    store(work.k, 0, work.head(at_.f), work.rows);
    // In float, and with tight tolerances, rounding alone moves an iterate by more than kSmall.
    const double rounding = kRoundings * epsilon_of(work.y.scalar_type());
    auto small = ops::allowed_norm(work.y, work.y, allowed_, work.rows);
    for (double& size : small) size = std::max(rounding * size, kSmall);
    std::vector<char> failed(size_t(work.rows), 0);
    for (int i = 1; i < kStages; ++i) find_stage(work, i, small, failed);
    auto errors =
        ops::stage_error(work.y, work.next, work.k, table_error(), work.h, allowed_, work.rows);
    for (size_t r = 0; r < errors.size(); ++r) {
      if (failed[r]) errors[r] = std::isfinite(errors[r]) ? kFailed : errors[r];
    }
    return errors;
  }

  void advance(Work& work, const std::vector<char>& accepted) override {
    Stepper::advance(work, accepted);
    for (size_t r = 0; r < accepted.size(); ++r) work.known[r] = !accepted[r];
  }

  /// Each stage as an implicit function: its derivative is exact at what was found.
  std::vector<Tensor> taped(const Field& f, const Tensor& y, const std::vector<double>& t,
                            const std::vector<double>& h, const Tensor& rows) const override {
    const Tensor step = column_of(h, y);
    std::vector<Tensor> k{f(times_at(t, h, 0, y), y, rows)};
    for (int i = 1; i < kStages; ++i) {
      const Tensor now = times_at(t, h, kNodes[i], y);
      Tensor sum = table_a()[size_t(i)][0] * k[0];
      for (size_t j = 1; j < k.size(); ++j) {
        if (table_a()[size_t(i)][j] != 0) sum = sum + table_a()[size_t(i)][j] * k[j];
      }
      const Tensor known = y + step * sum;
      Tensor found = known.detach(), inverse;
      for (size_t j = 0; j < k.size(); ++j)
        found = found + step * kGamma * table_predictor()[size_t(i)][j] * k[j].detach();
      for (int iteration = 0; iteration < kExact; ++iteration) {
        const c10::AutoGradMode no_tape(false);
        const Tensor J = f.jacobian(now, found, rows).y;
        const Tensor M = at::eye(y.size(1), J.options()) - kGamma * step.unsqueeze(2) * J;
        inverse = at::linalg_inv(M);
        const Tensor residual = known.detach() + kGamma * step * f(now, found, rows) - found;
        const Tensor moved = inverse.matmul(residual.unsqueeze(2)).squeeze(2);
        found = (found + moved).detach();
        if ((moved.abs() <= kRounding * found.abs()).all().item<bool>()) break;
      }
      const Tensor residual = known + kGamma * step * f(now, found, rows) - found;
      const Tensor state = found + inverse.matmul(residual.unsqueeze(2)).squeeze(2);
      k.push_back((state - known) / (kGamma * step));
    }
    return k;
  }

  std::vector<double> weights(double theta) const override {
    return theta == 1 ? table_b() : weights_at(table_dense(), theta);
  }
  int stages() const override { return kStages; }
  int error_order() const override { return 5; }
  int64_t jacobians() const override { return at_.jacobians; }
  int64_t factorisations() const override { return at_.factorisations; }

 private:
  static constexpr int kExact = 20;
  static constexpr double kRounding = 1e-14;

  /// Newton's iteration of one stage, each row for as long as it needs; `next` is its state.
  void find_stage(Work& work, int i, const std::vector<double>& small, std::vector<char>& failed) {
    const auto b = size_t(work.rows);
    ops::stage_sum(known_, work.y, work.k, table_a()[size_t(i)], work.h, work.rows);
    std::vector<double> step;
    for (const double h : work.h) step.push_back(kGamma * h);
    ops::stage_sum(work.next, known_, work.k, table_predictor()[size_t(i)], step, work.rows);
    std::vector<char> open(b, 1);
    std::vector<double> before(b, 0);
    const Tensor state = work.head(work.next), change = work.head(change_);
    for (int iteration = 0; iteration < kIterations; ++iteration) {
      const Tensor value = f_(work.times(kNodes[i]), state, work.index());
      // (I / (h gamma) - J) change = f(state) - (state - known) / (h gamma)
      std::vector<double> inverse;
      for (const double s : step) inverse.push_back(1 / s);
      change.copy_(value - (state - work.head(known_)) * column_of(inverse, state));
      at_.solve(change_);
      const auto size = ops::allowed_norm(change_, work.y, allowed_, work.rows);
      std::vector<double> take(b, 0.0);
      bool any = false;
      for (size_t r = 0; r < b; ++r) {
        if (!open[r]) continue;
        const double rate = iteration > 0 ? size[r] / before[r] : 0.5;
        if (!std::isfinite(size[r]) || (iteration > 0 && rate > 1 && size[r] > small[r])) {
          failed[r] = 1;
          open[r] = 0;
          continue;
        }
        take[r] = 1;
        before[r] = size[r];
        const double left = size[r] * (iteration > 0 ? rate / std::max(1 - rate, 0.1) : 1);
        if (left <= small[r] || size[r] == 0) open[r] = 0;
        any |= open[r];
      }
      take_rows(state, change, take);
      if (!any) break;
    }
    for (size_t r = 0; r < b; ++r) failed[r] |= open[r];
    std::vector<double> inverse;
    for (const double s : step) inverse.push_back(1 / s);
    store(work.k, i, (state - work.head(known_)) * column_of(inverse, state), work.rows);
  }

  /// Rows that are open move; the others keep their bits, whatever their change holds.
  static void take_rows(const Tensor& state, const Tensor& change,
                        const std::vector<double>& take) {
    const Tensor chosen = column_of(take, state).gt(0);
    state.copy_(at::where(chosen, state + change, state));
  }

  Field f_;
  ops::Allowance allowed_;
  Linearisation at_;
  Tensor known_, change_;
};

}  // namespace

std::unique_ptr<Stepper> kvaerno5(const Field& f, const ops::Allowance& allowed) {
  return std::make_unique<Kvaerno>(f, allowed);
}

}  // namespace deq::ode
