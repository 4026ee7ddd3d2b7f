// Operator splitting for z = s(W z + b), s the proximal operator of a convex function h and I - W
// strongly monotone: then there is one solution, whatever W's spectral radius is, and it is the
// zero of the sum of two monotone operators, (I - W) z - b and the subdifferential of h (Winston
// and Kolter, NeurIPS 2020). With R = (I + alpha (I - W))^-1 (. + alpha b) and P the proximal
// operator of alpha h, the iteration is
//
//     z = P(w),   v = R(2 z - w),   w <- w + 2 relaxation (v - z)
//
// (Lions and Mercier 1979; relaxation 1: Peaceman and Rachford, 1/2: Douglas and Rachford). It
// converges from any start, for any alpha > 0. What is judged is v: with y = v + (v - 2 z + w) /
// alpha = W v + b, f(v) = s(y) is known without another product. Of an adjoint, u = W s(u) + b with
// s linear, the state is y.
//
// Anderson's method accelerates w, which has Lipschitz constant 1 at most, where it is told to
// (`memory`).
#pragma once

#include "deq/solvers/driver.h"

namespace deq {

/// What methods with a resolvent share.
struct SplittingOptions {
  double alpha;
  int64_t memory;
  Scope scope;
};

/// The same as options, `alpha` being the step's default.
void splitting_fields(auto& self, auto&& field, const char* alpha) {
  field("alpha", self.alpha, alpha, between(0, 1e6));
  field("memory", self.memory, "past iterates that Anderson's method mixes; 0: none",
        between(0, 64));
  field("scope", self.scope, "whose residuals choose the coefficients");
}

/// `name` is the solver's, for errors. Throws deq::Error for an f without a resolvent.
Propose start_splitting(const char* name, const SplittingOptions& options, double relaxation,
                        const Map& f, const Layout& layout);

/// f's resolvent. Throws deq::Error where it has none.
Map::Resolvent resolvent_of(const char* name, const Map& f);

/// Which of the rows keep what they have, of a method that knows f(z) without the driver's calls:
/// those that are done. `sure` is false where one of them may have been given up, so that its state
/// is another than the one that was evaluated last: the driver is to call f then.
class DoneRows {
 public:
  struct Now {
    std::vector<char> open;
    bool all_open = true;
    bool sure = true;
  };
  Now see(const Iterate& at);

 private:
  std::vector<char> open_;
};

}  // namespace deq
