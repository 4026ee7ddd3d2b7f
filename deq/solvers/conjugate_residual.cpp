#include "deq/solvers/conjugate_residual.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "deq/ops/rows.h"
#include "deq/solvers/solver_loop.h"

namespace deq {

using at::Tensor;

namespace {

/// A = I - J. Of each row: the best u so far, r = g - A u there, a direction p and A p.
class ConjugateResidualMethod {
 public:
  Proposal propose(const Iterate& at) {
    if (!u_.defined()) {
      begin(at.z, at.g);
    } else {
      advance(at);
      restart(at);
    }
    return {u_ + r_, {}};
  }

 private:
  void begin(const Tensor& u, const Tensor& r) {
    u_ = u;
    r_ = r;
    p_ = at::zeros_like(r);
    ap_ = at::zeros_like(r);
  }

  void advance(const Iterate& at) {
    const Tensor ar = r_ - at.g;
    const Tensor along = ops::row_dots({ar, ap_}, ap_, at.resting, &at.pool);
    const Tensor minus = -ratio(along.narrow(1, 0, 1), along.narrow(1, 1, 1));
    p_ = ops::row_mix(minus, {p_}, r_, at.resting, &at.pool);
    ap_ = ops::row_mix(minus, {ap_}, ar, at.resting, &at.pool);
    const Tensor size = ops::row_dots({r_, ap_}, ap_, at.resting, &at.pool);
    const Tensor a = ratio(size.narrow(1, 0, 1), size.narrow(1, 1, 1));
    u_ = ops::row_mix(a, {p_}, u_, at.resting, &at.pool);
    r_ = ops::row_mix(-a, {ap_}, r_, at.resting, &at.pool);
  }

  /// Rows that are put back or taken up again know nothing.
  void restart(const Iterate& at) {
    if (std::find(at.anew.begin(), at.anew.end(), 1) == at.anew.end()) return;
    const Tensor zero = at::zeros_like(r_);
    u_ = ops::row_where(at.anew, at.z, u_);
    r_ = ops::row_where(at.anew, at.g, r_);
    p_ = ops::row_where(at.anew, zero, p_);
    ap_ = ops::row_where(at.anew, zero, ap_);
  }

  /// 0 / 0 is none; (R, 1) double.
  static Tensor ratio(const Tensor& part, const Tensor& whole) {
    return (part / whole).nan_to_num(0, 0, 0).contiguous();
  }

  Tensor u_, r_, p_, ap_;  // (R, n)
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
