#include "deq/solvers/driver.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "deq/ops/rows.h"

namespace deq {
namespace {

using at::Tensor;
constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Keeps 0 / 0 of a row that is exactly zero at zero: converged. Below every norm that a float has.
constexpr double kTiny = 1e-100;

using Numbers = std::vector<double>;
using Flags = std::vector<char>;

bool any(const Flags& rows) { return std::find(rows.begin(), rows.end(), 1) != rows.end(); }
bool all(const Flags& rows) { return std::find(rows.begin(), rows.end(), 0) == rows.end(); }

/// (R) of a type, from numbers on the host.
template <class T>
Tensor tensor_of(const std::vector<T>& values, at::ScalarType type) {
  return at::from_blob(const_cast<T*>(values.data()), {int64_t(values.size())}, type).clone();
}

/// a where `rows` holds, b elsewhere; a and b (R, n). No arithmetic: NaN does not spread.
Tensor where_rows(const Flags& rows, const Tensor& a, const Tensor& b) {
  return at::where(tensor_of(rows, at::kBool).to(a.device()).unsqueeze(1), a, b);
}

/// One evaluation, judged row by row.
struct Measured {
  Tensor g;  // (R, n)
  Numbers g_norm, f_norm;
  Numbers residual;  // relative
  Numbers ratio;     // of |g| to what the tolerances allow: at most 1 where they are met

  Measured(const Tensor& z, const Tensor& fz, const StopRule& stop) {
    const ops::RowResidual found = ops::row_residual(z, fz);
    g = found.g;
    const Tensor norms = found.norms.to(at::kCPU);
    const double* n = norms.data_ptr<double>();
    for (Numbers* numbers : {&g_norm, &f_norm, &residual, &ratio})
      numbers->reserve(size_t(norms.size(0)));
    for (int64_t r = 0; r < norms.size(0); ++r, n += 2) {
      g_norm.push_back(n[0]);
      f_norm.push_back(n[1]);
      residual.push_back(n[0] / (n[1] + kTiny));
      ratio.push_back(n[0] / (std::max(stop.rel_tol * n[1], stop.abs_tol) + kTiny));
    }
  }
};

/// The larger one, NaN being the largest.
double larger(double a, double b) { return b > a || std::isnan(b) ? b : a; }

class Driver {
 public:
  Driver(const Map& f, const Tensor& z0, const StopRule& stop, const Layout& layout)
      : f_(f.series()),
        shape_(z0.sizes().vec()),
        stop_(stop),
        layout_(layout),
        rows_(size_t(layout.rows())) {
    start_ = best_ = layout_.fold(z0.detach());
    merit_.assign(rows_, kInfinity);
    residual_.assign(rows_, kInfinity);
    own_.assign(rows_, kInfinity);
    active_.assign(rows_, 1);
    reason_.assign(rows_, uint8_t(Reason::MaxSteps));
    steps_.assign(rows_, stop.max_steps);
  }

  Solution run(const Propose& propose) {
    const std::function<Tensor(const Tensor&)> evaluate = [this](const Tensor& z) {
      return call(held(z));
    };
    const std::function<Tensor()> active = [this] {
      return tensor_of(active_, at::kBool).to(best_.device());
    };
    Tensor z = best_, fz;
    int64_t step = 0;
    while (step < stop_.max_steps && any(active_)) {
      ++step;
      if (!fz.defined()) fz = call(z);
      const Tensor g = measure(z, fz, step);
      if (step == stop_.max_steps || !any(active_)) break;
      const Proposal next = propose({z, fz, g, active, evaluate});
      z = held(next.z);
      fz = next.fz;
    }
    verify(z, step);
    return finish();
  }

 private:
  /// z, with the rows that are done where they are.
  Tensor held(const Tensor& z) const { return all(active_) ? z : where_rows(active_, z, best_); }

  /// The positions at each sample's beginning that have converged: they stay where they were when
  /// they were last evaluated, and so do those before them. Rows that were given up may stem from
  /// an earlier step.
  std::vector<int64_t> done() const {
    std::vector<int64_t> counts(size_t(layout_.batch), 0);
    if (evaluations_ == 1 || layout_.order == Order::Backward) return counts;
    const size_t T = layout_.by_position() ? size_t(layout_.positions) : 1;
    const auto converged = [&](size_t r) {
      return !active_[r] && reason_[r] == uint8_t(Reason::Converged);
    };
    for (size_t b = 0; b < counts.size(); ++b) {
      size_t k = 0;
      while (k < T && converged(b * T + k)) ++k;
      counts[b] = layout_.by_position() ? int64_t(k) : int64_t(k) * layout_.positions;
    }
    return counts;
  }

  Tensor call(const Tensor& z) {
    ++evaluations_;
    const Tensor fz = f_(z.view(shape_), done());
    DEQ_CHECK(fz.defined(), "solve: f returned an undefined tensor; expected shape [{}]",
              fmt::join(shape_, ", "));
    DEQ_CHECK(fz.sizes() == at::IntArrayRef(shape_),
              "solve: f maps shape [{}] to [{}]; z and f(z) must have one shape",
              fmt::join(shape_, ", "), fmt::join(fz.sizes(), ", "));
    DEQ_CHECK(fz.scalar_type() == best_.scalar_type(), "solve: f maps {} to {}; expected one type",
              c10::toString(best_.scalar_type()), c10::toString(fz.scalar_type()));
    return layout_.fold(fz.detach());
  }

  /// The largest value among the rows that each row depends on, itself included.
  Numbers over_dependencies(Numbers value) const {
    if (!layout_.by_position()) return value;
    const size_t T = size_t(layout_.positions);
    for (size_t begin = 0; begin < rows_; begin += T) {
      for (size_t k = 1; k < T; ++k) {
        const bool forward = layout_.order == Order::Forward;
        double& here = value[forward ? begin + k : begin + T - 1 - k];
        here = larger(value[forward ? begin + k - 1 : begin + T - k], here);
      }
    }
    return value;
  }

  /// Updates residuals, reasons and best iterates from one evaluation; returns g = f(z) - z.
  Tensor measure(const Tensor& z, const Tensor& fz, int64_t step) {
    const Measured now(z, fz, stop_);
    last_ = now.residual;
    Flags finite(rows_);
    for (size_t r = 0; r < rows_; ++r)
      finite[r] = std::isfinite(now.g_norm[r]) && std::isfinite(now.f_norm[r]);
    if (step == 1) {
      // With |f(z0)|, and over what a row depends on: a row that rests at first may well move
      // later.
      Numbers first(rows_);
      for (size_t r = 0; r < rows_; ++r)
        first[r] = finite[r] ? std::max(now.g_norm[r], now.f_norm[r]) : 0;
      scale_ = over_dependencies(std::move(first));
    }
    // A row that is done has a fixed ratio of its own; the others are judged by this evaluation.
    const Flags was_active = active_;
    Flags broken(rows_), diverged(rows_);
    for (size_t r = 0; r < rows_; ++r) {
      if (active_[r]) own_[r] = now.ratio[r];
      broken[r] = !finite[r];
      diverged[r] = now.g_norm[r] > kDivergence * (scale_[r] + kTiny);
    }
    fail(broken, Reason::NonFinite, step);
    fail(diverged, Reason::Diverged, step);
    const Numbers merit = over_dependencies(own_);
    keep_best(z, merit, now.residual, step);
    for (size_t r = 0; r < rows_; ++r) {
      if (active_[r] && merit[r] <= 1) retire(r, Reason::Converged, step);
    }
    for (size_t r = 0; r < rows_; ++r)
      trace_.push_back(was_active[r] ? now.residual[r] : residual_[r]);
    return all(finite) ? now.g : where_rows(finite, now.g, at::zeros_like(now.g));
  }

  /// Gives up the rows, and with them those that depend on them and could never converge.
  void fail(const Flags& rows, Reason reason, int64_t step) {
    Numbers failed(rows_);
    bool some = false;
    for (size_t r = 0; r < rows_; ++r) {
      if (!rows[r] || !active_[r]) continue;
      own_[r] = kInfinity;
      failed[r] = 1;
      some = true;
    }
    if (!some) return;
    const Numbers lost = over_dependencies(std::move(failed));
    for (size_t r = 0; r < rows_; ++r) {
      if (active_[r] && lost[r] > 0) retire(r, reason, step);
    }
  }

  void keep_best(const Tensor& z, const Numbers& merit, const Numbers& residual, int64_t step) {
    Flags better(rows_);
    for (size_t r = 0; r < rows_; ++r) {
      // The first evaluation always counts: without it a row would have no residual of its own.
      better[r] = active_[r] && (step == 1 || merit[r] < merit_[r]);
      if (!better[r]) continue;
      merit_[r] = merit[r];
      residual_[r] = residual[r];
    }
    if (all(better)) {
      best_ = z;
    } else if (any(better)) {
      best_ = where_rows(better, z, best_);
    }
  }

  void retire(size_t row, Reason reason, int64_t step) {
    reason_[row] = uint8_t(reason);
    steps_[row] = step;
    active_[row] = 0;
  }

  /// By position, the best iterates of one sample may stem from different steps, and a position's
  /// residual depends on those before it, which may have moved since the position was given up. So
  /// the residuals are those of the last evaluation where that was of what is returned; otherwise
  /// that is measured once more.
  void verify(const Tensor& z, int64_t step) {
    const auto is_open = [&](size_t r) { return reason_[r] != uint8_t(Reason::Converged); };
    bool open = false;
    for (size_t r = 0; r < rows_; ++r) open = open || is_open(r);
    if (!layout_.by_position() || !open) return;
    const auto known = [](double value) { return std::isnan(value) ? kInfinity : value; };
    if (best_.is_same(z) || best_.equal(z)) {
      for (size_t r = 0; r < rows_; ++r) {
        if (is_open(r)) residual_[r] = known(last_[r]);
      }
      return;
    }
    const Measured now(best_, call(best_), stop_);
    for (size_t r = 0; r < rows_; ++r) {
      if (is_open(r)) residual_[r] = known(now.residual[r]);
      if (active_[r]) own_[r] = known(now.ratio[r]);
    }
    const Numbers merit = over_dependencies(own_);
    for (size_t r = 0; r < rows_; ++r) {
      if (active_[r] && merit[r] <= 1) retire(r, Reason::Converged, step);
    }
  }

  Solution finish() {
    Solution solution;
    solution.z = (best_.is_same(start_) ? best_.clone() : best_).view(shape_);
    Report& report = solution.report;
    report.reason = tensor_of(reason_, at::kByte);
    report.residual = tensor_of(residual_, at::kDouble);
    report.steps = tensor_of(steps_, at::kLong);
    const int64_t R = int64_t(rows_);
    report.trace = tensor_of(trace_, at::kDouble).view({R > 0 ? int64_t(trace_.size()) / R : 0, R});
    report.evaluations = evaluations_;
    report.max_steps = stop_.max_steps;
    report.rel_tol = stop_.rel_tol;
    report.abs_tol = stop_.abs_tol;
    return solution;
  }

  Map::Series f_;
  std::vector<int64_t> shape_;
  StopRule stop_;
  Layout layout_;
  size_t rows_;
  Tensor start_;      // (R, n) z0, the caller's memory perhaps
  Tensor best_;       // (R, n) the best iterate of every row
  Numbers merit_;     // its merit: the ratio to the tolerance, over the rows it depends on
  Numbers residual_;  // its own relative residual
  Numbers last_;      // the same at the latest evaluation, best or not
  Numbers own_;       // the latest ratio of a row by itself; infinite where it failed
  Numbers scale_;     // what |f(z) - z| is compared with to see that it diverges
  Flags active_;      // not done
  std::vector<uint8_t> reason_;
  std::vector<int64_t> steps_;
  Numbers trace_;  // residuals of every row at every step
  int64_t evaluations_ = 0;
};

}  // namespace

Solution iterate(const Map& f, const at::Tensor& z0, const Propose& propose, const StopRule& stop,
                 const Layout& layout) {
  validate(stop, "StopRule");
  DEQ_CHECK(z0.defined() && z0.is_floating_point(),
            "solve: z0 is {}; expected a floating-point tensor",
            z0.defined() ? c10::toString(z0.scalar_type()) : "undefined");
  c10::AutoGradMode no_tape(false);
  return Driver(f, z0, stop, layout).run(propose);
}

}  // namespace deq
