// A solve whose rows come and go: each begins when it is told to, and ends by itself.
#pragma once

#include <vector>

#include "deq/solvers/judged_loop.h"
#include "deq/solvers/solvers.h"

namespace deq {

/// R independent rows, each the solve of a state (n) of its own: by the same method, stop rule and
/// guards as `solve` of it alone, one after the other as the caller hands them in. A row's result
/// depends neither on the rows beside it, nor on when it began, nor on what stood in its place
/// before: where f's rows have the same bits whatever stands beside them, so has it (with a line
/// search too). On the CPU; no tape is recorded.
class RollingSolve : JudgedLoop {
 public:
  /// f maps (R, 1, n) to the same shape; of rows whose `done` is 1 any numbers will do. `like` is
  /// (R, n), of the states' type. Scope `whole` is `sample` here. Throws deq::Error for options out
  /// of range and a scope that the solver does not have.
  RollingSolve(const Map::Series& f, const at::Tensor& like, const Solver& solver,
               const StopRule& stop);

  /// How a row ended. It is not in use any more, until it begins again.
  struct Ended {
    int64_t row = 0;
    Reason reason = Reason::MaxSteps;
    double residual = 0;      ///< relative, of its state
    int64_t evaluations = 0;  ///< of f in which the row took part
  };
  struct Round {
    std::vector<Ended> ended;
    at::Tensor states;  ///< (ended, n) what each of them ended with, as Solution::z
  };

  /// A row that is not in use starts from z0 (n) at the next step.
  void begin(int64_t row, const at::Tensor& z0);
  bool in_use() const { return any(used_); }
  /// One evaluation of f for all rows in use, of which there must be one.
  Round step();

 private:
  RollingSolve(const Map::Series& f, const at::Tensor& z, const Solver& solver,
               const StopRule& stop, const Layout& layout);
  std::vector<int64_t> done() const override;
  void take_up();
  Round ended(const at::Tensor& z);

  Propose propose_;
  at::Tensor z_, fz_;  // (R, n) the next iterates, and f there where it is known
  at::Tensor starts_, zeros_;
  Flags used_, begun_;
  std::vector<int64_t> counts_;  // evaluations of each row
};

}  // namespace deq
