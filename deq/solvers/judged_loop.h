#pragma once

#include <functional>
#include <vector>

#include "deq/solvers/solver_loop.h"

namespace deq {

struct AtLimit;

/// Who hears of a solve at which steps (limits.h).
struct Watch {
  std::vector<int64_t> limits;  ///< rising; the last is that of the solve
  std::function<void(AtLimit)> see;
};

/// `iterate`, watched.
void iterate_watched(const Map& f, const at::Tensor& z0, const Propose& propose,
                     const StopRule& stop, const Layout& layout, const Watch& watch);

/// What the loops on the host share: rows that are judged after every evaluation, held where they
/// are done, and put back where f was not finite. A row counts evaluations from its own beginning.
class JudgedLoop : protected SolverLoop {
 public:
  JudgedLoop(const Map& f, const at::Tensor& z0, const StopRule& stop, const Layout& layout);

 protected:
  virtual ~JudgedLoop() = default;

  /// Updates residuals, reasons and best iterates from one evaluation; what of f(z) is not finite
  /// in an open row is zero afterwards. `at_the_end`: there is none after it.
  Measured measure(const at::Tensor& z, at::Tensor& fz, bool at_the_end);
  /// Where the open rows go next; the others stay. f is undefined there unless the method knows it.
  Proposal next(const Propose& propose, const at::Tensor& z, const at::Tensor& fz,
                const at::Tensor& g);
  /// Of each sample, the positions that an evaluation need not look at.
  virtual std::vector<int64_t> done() const = 0;
  /// z, with the rows that are done where they are.
  at::Tensor held(const at::Tensor& z);
  /// The row is open, and nothing is known of it.
  void begin_row(size_t row);

  std::vector<int64_t> step_;  // evaluations since the row began
  Flags resting_, anew_;       // as in Iterate
  bool with_rates_ = true;     // whether Report::rate is wanted

 private:
  void wake(const Measured& now, bool at_the_end);
  at::Tensor put_back(const at::Tensor& z);
  void begin_scales(const Measured& now, const Flags& finite);
  void fail(const Flags& finite, const Numbers& g_norm);
  void give_up(const Flags& rows, Reason reason);
  void keep_best(const at::Tensor& z, const Numbers& merit);
  void find_rates(const at::Tensor& z, const Measured& now, const Flags& others);
  void keep_finite(const at::Tensor& z, at::Tensor& fz, const Flags& finite, Measured& now);

  Numbers scale_;                   // what |f(z) - z| is compared with to see that it diverges
  Flags back_;                      // rows that are put back now,
  std::vector<int> steps_back_;     // and how often they were
  at::Tensor finite_z_, finite_g_;  // (R, n) of each open row, the last where f was finite
};

}  // namespace deq
