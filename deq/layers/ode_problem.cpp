#include "deq/layers/ode_problem.h"

#include <ATen/ATen.h>

#include <cmath>

#include "deq/base/epsilon.h"

namespace deq {

using at::Tensor;

OdeTimes::OdeTimes(std::initializer_list<double> times)
    : value(at::tensor(std::vector<double>(times), at::kDouble)) {}

namespace ode {
namespace {

void check_times(const Times& times) {
  for (int64_t b = 0; b < times.samples; ++b) {
    double direction = 0;
    for (int64_t i = 0; i < times.count; ++i) {
      const double time = times.at(i, b);
      DEQ_CHECK(std::isfinite(time), "times[{}] = {}; expected a finite number", i, time);
      if (i == 0) continue;
      const double change = time - times.at(i - 1, b);
      DEQ_CHECK(change * direction >= 0, "times[{}] = {} after {}; expected times that are sorted",
                i, time, times.at(i - 1, b));
      if (direction == 0) direction = change;
    }
  }
}

Times times_on_host(const Tensor& given, int64_t B) {
  Times times;
  times.count = given.size(0);
  times.samples = B;
  const Tensor host = given.detach().to(at::kCPU, at::kDouble);
  const Tensor all =
      (host.dim() == 1 ? host.unsqueeze(1).expand({times.count, B}) : host).contiguous();
  times.values.assign(all.data_ptr<double>(), all.data_ptr<double>() + all.numel());
  check_times(times);
  return times;
}

}  // namespace

Problem checked(const OdeFunction& f, const Tensor& y0, const OdeTimes& times,
                const OdeOptions& options) {
  validate(options, "OdeOptions");
  DEQ_CHECK(bool(f), "f is empty; expected a function of t and y");
  DEQ_CHECK(y0.defined() && y0.dim() >= 1 &&
                (y0.scalar_type() == at::kFloat || y0.scalar_type() == at::kDouble),
            "y0 has type {} and {} dimensions; expected float or double, (B, ...)",
            y0.defined() ? c10::toString(y0.scalar_type()) : "none", y0.defined() ? y0.dim() : 0);
  const Tensor& t = times.value;
  Problem p;
  p.B = y0.size(0);
  DEQ_CHECK(t.defined() && at::isFloatingType(t.scalar_type()) && t.dim() >= 1 && t.dim() <= 2 &&
                t.size(0) >= 1 && (t.dim() == 1 || t.size(1) == p.B),
            "times have shape [{}]; expected (T) or (T, {}), T >= 1, floating",
            t.defined() ? fmt::format("{}", fmt::join(t.sizes(), ", ")) : "", p.B);
  const double least = 4 * epsilon_of(y0.scalar_type());
  DEQ_CHECK(options.rel_tol >= least,
            "OdeOptions.rel_tol = {}; expected >= {:.2g}, 4 roundings of {}", options.rel_tol,
            least, c10::toString(y0.scalar_type()));
  p.shape.assign(y0.sizes().begin() + 1, y0.sizes().end());
  for (const int64_t size : p.shape) p.n *= size;
  p.T = t.size(0);
  p.y0 = y0.contiguous().view({p.B, p.n});
  p.clock = t.to(y0.options().requires_grad(false));
  if (p.clock.dim() == 1) p.clock = p.clock.unsqueeze(1).expand({p.T, p.B});
  p.times = times_on_host(t, p.B);
  p.allowed.relative = options.rel_tol;
  p.allowed.absolute = at::full({p.n}, options.abs_tol, at::kDouble);
  if (options.abs_tols.defined()) {
    DEQ_CHECK(options.abs_tols.numel() == p.n, "abs_tols has shape [{}]; expected [{}]",
              fmt::join(options.abs_tols.sizes(), ", "), fmt::join(p.shape, ", "));
    p.allowed.absolute =
        options.abs_tols.detach().to(at::kCPU, at::kDouble).contiguous().view({p.n});
  }
  return p;
}

Tensor flags(const std::vector<char>& list, const Tensor& like) {
  return at::tensor(std::vector<int64_t>(list.begin(), list.end()), at::kLong)
      .to(like.device(), at::kBool);
}

}  // namespace ode
}  // namespace deq
