// What every gradient mode is given: how to find the equilibrium, and where to report the adjoint.
#pragma once

#include <functional>
#include <memory>
#include <mutex>

#include "deq/base/map.h"
#include "deq/solvers/report.h"

namespace deq {

/// One call of a gradient mode. A mode keeps nothing between calls.
struct Forward {
  /// Solves z = f(z) from z0 without a tape.
  std::function<Solution(const Map& f, const at::Tensor& z0)> solve;
  /// The stop rule of that solve; modes that unroll judge their last step by it.
  StopRule stop;
  /// Called from backward with the adjoint's report, when there was an adjoint solve. May be empty.
  /// With several backward threads it is called from them.
  std::function<void(const Report&)> on_adjoint;
};

/// The report of the latest of some solves, which threads may write and read.
class LatestReport {
 public:
  void set(const Report& report) {
    const std::lock_guard lock(mutex_);
    report_ = report;
  }
  Report get() const {
    const std::lock_guard lock(mutex_);
    return report_;
  }

 private:
  mutable std::mutex mutex_;
  Report report_;
};

/// z with its tape (when gradients are on), and the reports of how it was found and, once backward
/// has run, of how its gradient was. Stands for z wherever a tensor is expected.
struct Equilibrated {
  at::Tensor z;
  Report report;
  std::shared_ptr<LatestReport> latest_adjoint = {};  ///< none of modes that solve no adjoint

  /// Of the adjoint's solve in the latest backward pass through z; a default Report before, and of
  /// modes that solve none.
  Report adjoint() const { return latest_adjoint ? latest_adjoint->get() : Report{}; }

  operator at::Tensor() const { return z; }  // NOLINT: it is its state
};

/// Judges z once more, by an f(z) that was evaluated for another purpose. Where it is not what the
/// solve said (f changes between its calls, or one row moved after another that depends on it had
/// stopped), residual and reason become those of this evaluation.
void confirm(Report& report, const at::Tensor& z, const at::Tensor& fz, const StopRule& stop);

/// t, of the shape of the state that was solved, with NaN in its gradient and in itself wherever
/// `report` says that a row was not finite: no gradient of such a row passes for one.
at::Tensor marked(const at::Tensor& t, const Report& report);

}  // namespace deq
