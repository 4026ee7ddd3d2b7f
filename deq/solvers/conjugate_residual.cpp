#include "deq/solvers/conjugate_residual.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "deq/ops/rows.h"
#include "deq/solvers/solver_loop.h"

namespace deq {

using at::Tensor;

namespace {

constexpr double kLost = 0.1;  // cosine of directions that should be orthogonal

/// A = I - J. Of each row: the best u so far, r = g - A u there, a direction p and A p.
///
/// f is asked at u + t r, with the step of before for t: what r and the residual of u differ by
/// (rounding, in r alone) comes into A r divided by t, and would grow by 1 - step / t a step.
class ConjugateResidualMethod {
 public:
  Proposal propose(const Iterate& at) {
    if (!u_.defined()) {
      u_ = at.z;
      forget(at.g);
    } else {
      restart(at, advance(at));
    }
    return {ops::row_mix(t_, {r_}, u_, at.resting, &at.pool), {}};
  }

 private:
  void forget(const Tensor& r) {
    r_ = r;
    p_ = ap_ = before_ = at::zeros_like(r);
    t_ = at::ones({r.size(0), 1}, r.options().dtype(at::kDouble));
  }

  /// Rows whose A r is no longer orthogonal to the A p of two steps ago, (R).
  Tensor advance(const Iterate& at) {
    const Tensor ar = ops::row_mix(t_.reciprocal(), {r_ - at.g}, {}, at.resting, &at.pool);
    const Tensor own = ops::row_dots({ar, ap_, before_}, ar, at.resting, &at.pool);
    const Tensor old = ops::row_dots({before_}, before_, at.resting, &at.pool);
    const Tensor lost =
        own.select(1, 2).square() > kLost * kLost * old.select(1, 0) * own.select(1, 0);
    const Tensor last = ops::row_dots({ap_}, ap_, at.resting, &at.pool);
    const Tensor minus = -ratio(own.narrow(1, 1, 1), last);
    before_ = ap_;
    p_ = ops::row_mix(minus, {p_}, r_, at.resting, &at.pool);
    ap_ = ops::row_mix(minus, {ap_}, ar, at.resting, &at.pool);
    const Tensor size = ops::row_dots({r_, ap_}, ap_, at.resting, &at.pool);
    const Tensor a = ratio(size.narrow(1, 0, 1), size.narrow(1, 1, 1));
    u_ = ops::row_mix(a, {p_}, u_, at.resting, &at.pool);
    r_ = ops::row_mix(-a, {ap_}, r_, at.resting, &at.pool);
    t_ = at::where(a == 0, at::ones_like(a), a.abs());
    return lost;
  }

  /// Rows that are put back or taken up again know nothing, nor do lost ones.
  void restart(const Iterate& at, const Tensor& lost) {
    const Tensor on_host = lost.cpu();
    std::vector<char> anew = at.anew;
    for (size_t r = 0; r < anew.size(); ++r) anew[r] |= on_host.data_ptr<bool>()[r];
    if (std::find(anew.begin(), anew.end(), 1) == anew.end()) return;
    const Tensor zero = at::zeros_like(r_);
    u_ = ops::row_where(anew, at.z, u_);
    r_ = ops::row_where(anew, at.g, r_);
    for (Tensor* known : {&p_, &ap_, &before_}) *known = ops::row_where(anew, zero, *known);
    t_ = ops::row_where(anew, at::ones_like(t_), t_);
  }

  /// 0 / 0 is none; (R, 1) double.
  static Tensor ratio(const Tensor& part, const Tensor& whole) {
    return (part / whole).nan_to_num(0, 0, 0).contiguous();
  }

  Tensor u_, r_, p_, ap_, before_;  // (R, n); A p of the step before
  Tensor t_;                        // (R, 1) double
};

}  // namespace

Propose ConjugateResidual::start(const Map& f, const Layout& layout) const {
  DEQ_CHECK(f.energy(),
            "solver {}: this f has no energy, so that its Jacobian is not known to be symmetric; "
            "expected the adjoint of an f with one, or another solver",
            name);
  DEQ_CHECK(!layout.by_position(),
            "solver {}: scope = {}: an energy is of a whole sample; expected sample or whole", name,
            Names<Scope>::values[size_t(layout.scope)]);
  const auto method = std::make_shared<ConjugateResidualMethod>();
  return [method](const Iterate& at) { return method->propose(at); };
}

}  // namespace deq
