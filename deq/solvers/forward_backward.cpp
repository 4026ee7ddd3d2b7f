#include "deq/solvers/forward_backward.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "deq/ops/rows.h"
#include "deq/solvers/anderson.h"

namespace deq {

using at::Tensor;

namespace {

/// Of a state z the inner variable is v = z and y = W v + b its argument; of an adjoint the state
/// is y, and v = s(y) only at the solution.
class ForwardBackwardMethod {
 public:
  ForwardBackwardMethod(Map::Resolvent of, const ForwardBackward& options, const Layout& layout)
      : of_(std::move(of)),
        alpha_(options.alpha > 0 ? options.alpha : of_.margin / (of_.norm * of_.norm)) {
    if (options.memory > 0)
      mix_ = Anderson{.memory = options.memory, .scope = options.scope}.start(layout);
  }

  Proposal propose(const Iterate& at) {
    if (!v_.defined()) {
      enter(entered(at.z));
    } else if (std::find(at.anew.begin(), at.anew.end(), 1) != at.anew.end()) {
      enter(ops::row_where(at.anew, entered(at.z), v_));
    }
    const Tensor image = of_.proximal((1 - alpha_) * v_ + alpha_ * y_, alpha_);
    Tensor v = image;
    if (mix_)
      v = mix_({v_, image, image - v_, at.resting, at.anew, at.active, at.evaluate, at.pool}).z;
    const DoneRows::Now done = done_.see(at);
    if (!done.all_open) v = ops::row_where(done.open, v, v_, &at.pool);
    enter(v);
    if (of_.outer) return {y_, {}};
    if (!done.sure) return {v_, {}};
    Tensor fz = of_.proximal(y_, 1);
    if (!done.all_open) fz = ops::row_where(done.open, fz, at.fz, &at.pool);
    return {v_, fz};
  }

 private:
  Tensor entered(const Tensor& z) const { return of_.outer ? of_.proximal(z, 1) : z; }
  void enter(const Tensor& v) {
    v_ = v;
    y_ = of_.argument(v);
  }

  Map::Resolvent of_;
  double alpha_;
  Propose mix_;
  DoneRows done_;
  Tensor v_, y_;
};

}  // namespace

Propose ForwardBackward::start(const Map& f, const Layout& layout) const {
  const auto method = std::make_shared<ForwardBackwardMethod>(resolvent_of(name, f), *this, layout);
  return [method](const Iterate& at) { return method->propose(at); };
}

}  // namespace deq
