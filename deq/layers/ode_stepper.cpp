#include "deq/layers/ode_stepper.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "deq/layers/ode_stiff.h"

namespace deq::ode {

using at::Tensor;

Work::Work(int64_t samples, int64_t width, int64_t stages, const at::TensorOptions& options)
    : y(at::zeros({samples, width}, options)),
      next(at::zeros({samples, width}, options)),
      k(at::zeros({stages, samples, width}, options)),
      clock_(at::zeros({samples}, options)) {}

void Work::fill(const std::vector<int64_t>& samples, const Tensor& y0) {
  sample = samples;
  rows = int64_t(samples.size());
  t.assign(samples.size(), 0.0);
  h.assign(samples.size(), 0.0);
  scale.assign(samples.size(), 1.0);
  known.assign(samples.size(), 0);
  views();
  if (rows == y0.size(0)) {
    y.copy_(y0);
  } else {
    head(y).copy_(y0.index_select(0, index_));
  }
}

void Work::views() {
  index_ = at::tensor(sample, at::kLong).to(y.device());
  clock_head_ = head(clock_);
}

void Work::keep(const std::vector<int64_t>& kept) {
  const auto shrink = [&](auto& list) {
    for (size_t r = 0; r < kept.size(); ++r) list[r] = list[size_t(kept[r])];
    list.resize(kept.size());
  };
  shrink(sample);
  shrink(t);
  shrink(h);
  shrink(scale);
  shrink(known);
  rows = int64_t(kept.size());
  if (rows > 0) {
    const Tensor from = at::tensor(kept, at::kLong).to(y.device());
    std::vector<Tensor> states{y, k[0]};
    states.insert(states.end(), beside.begin(), beside.end());
    for (const Tensor& state : states) head(state).copy_(state.index_select(0, from));
  }
  views();
}

const Tensor& Work::times(double c) {
  if (clock_.is_cpu()) {
    AT_DISPATCH_FLOATING_TYPES(clock_.scalar_type(), "times", [&] {
      scalar_t* clock = clock_.data_ptr<scalar_t>();
      for (int64_t r = 0; r < rows; ++r) clock[r] = scalar_t(t[size_t(r)] + c * h[size_t(r)]);
    });
  } else {
    std::vector<double> now(t);
    for (size_t r = 0; r < now.size(); ++r) now[r] += c * h[r];
    clock_head_.copy_(at::tensor(now, at::kDouble));
  }
  return clock_head_;
}

void store(const Tensor& k, int j, const Tensor& value, int64_t rows) {
  if (k.is_cpu() && value.is_contiguous()) {
    const auto bytes = size_t(rows * k.size(2) * k.element_size());
    auto* to = static_cast<char*>(k.data_ptr()) + j * k.stride(0) * k.element_size();
    if (bytes > 0) std::memcpy(to, value.data_ptr(), bytes);
  } else {
    k.select(0, j).narrow(0, 0, rows).copy_(value);
  }
}

void Stepper::advance(Work& work, const std::vector<char>& accepted) {
  const auto last = int64_t(std::count(accepted.begin(), accepted.end(), 1));
  if (last == 0) return;
  if (last == work.rows) {
    std::swap(work.y, work.next);
    return;
  }
  if (!work.y.is_cpu()) {
    const Tensor chosen = at::tensor(std::vector<int64_t>(accepted.begin(), accepted.end()))
                              .to(work.y.device(), at::kBool)
                              .unsqueeze(1);
    work.head(work.y).copy_(at::where(chosen, work.head(work.next), work.head(work.y)));
    return;
  }
  const auto bytes = size_t(work.y.size(1) * work.y.element_size());
  auto* to = static_cast<char*>(work.y.data_ptr());
  const auto* from = static_cast<const char*>(work.next.data_ptr());
  for (size_t r = 0; r < accepted.size(); ++r) {
    if (accepted[r] && bytes > 0) std::memcpy(to + r * bytes, from + r * bytes, bytes);
  }
}

ExplicitStepper::ExplicitStepper(const Tableau& tableau, const Field& f, ops::Allowance allowed,
                                 int64_t fixed)
    : tableau_(tableau), f_(f), allowed_(std::move(allowed)), fixed_(fixed) {}

void ExplicitStepper::evaluate(Work& work, int stage, const Tensor& y) {
  store(work.k, stage, f_(work.times(tableau_.c[size_t(stage)]), work.head(y), work.index()),
        work.rows);
}

std::vector<double> ExplicitStepper::attempt(Work& work) {
  const Tableau& tableau = tableau_;
  work.scale = work.h;
  if (!inner_.defined()) inner_ = at::zeros_like(work.y);
  if (std::count(work.known.begin(), work.known.end(), 0) > 0) {
    evaluate(work, 0, work.y);
    work.known.assign(work.known.size(), 1);
  }
  for (int i = 1; i < tableau.stages; ++i) {
    const bool last = i + 1 == tableau.stages;
    const Tensor& state = last ? work.next : inner_;
    ops::stage_sum(state, work.y, work.k, tableau.a[size_t(i)], work.h, work.rows);
    evaluate(work, i, state);
  }
  std::vector<double> errors =
      ops::stage_error(work.y, work.next, work.k, tableau.error, work.h, allowed_, work.rows);
  if (!tableau.coarse.empty()) {
    const auto coarse =
        ops::stage_error(work.y, work.next, work.k, tableau.coarse, work.h, allowed_, work.rows);
    for (size_t r = 0; r < errors.size(); ++r) {
      if (errors[r] == 0) continue;
      errors[r] *= errors[r] / std::sqrt(errors[r] * errors[r] + 0.01 * coarse[r] * coarse[r]);
    }
  }
  return errors;
}

void ExplicitStepper::extend(Work& work) {
  for (int i = tableau_.stages; i < tableau_.all(); ++i) {
    ops::stage_sum(inner_, work.y, work.k, tableau_.a[size_t(i)], work.h, work.rows);
    evaluate(work, i, inner_);
  }
}

void ExplicitStepper::advance(Work& work, const std::vector<char>& accepted) {
  Stepper::advance(work, accepted);
  const int last = tableau_.stages - 1;
  const auto bytes = size_t(work.k.size(2) * work.k.element_size());
  if (!work.k.is_cpu()) {
    const Tensor chosen = at::tensor(std::vector<int64_t>(accepted.begin(), accepted.end()))
                              .to(work.k.device(), at::kBool)
                              .unsqueeze(1);
    const Tensor first = work.head(work.k.select(0, 0));
    first.copy_(at::where(chosen, work.head(work.k.select(0, last)), first));
    return;
  }
  auto* to = static_cast<char*>(work.k.data_ptr());
  const auto* from = to + last * work.k.stride(0) * work.k.element_size();
  for (size_t r = 0; r < accepted.size(); ++r) {
    if (accepted[r] && bytes > 0) std::memcpy(to + r * bytes, from + r * bytes, bytes);
  }
}

Tensor times_at(const std::vector<double>& t, const std::vector<double>& h, double c,
                const Tensor& y) {
  const Tensor now = at::empty({int64_t(t.size())}, y.options().requires_grad(false));
  if (!now.is_cpu()) {
    std::vector<double> host(t);
    for (size_t r = 0; r < host.size(); ++r) host[r] += c * h[r];
    return now.copy_(at::tensor(host, at::kDouble));
  }
  AT_DISPATCH_FLOATING_TYPES(now.scalar_type(), "times", [&] {
    scalar_t* clock = now.data_ptr<scalar_t>();
    for (size_t r = 0; r < t.size(); ++r) clock[r] = scalar_t(t[r] + c * h[r]);
  });
  return now;
}

Tensor column_of(const std::vector<double>& numbers, const Tensor& y) {
  return at::tensor(numbers, at::kDouble).to(y.options().requires_grad(false)).unsqueeze(1);
}

std::vector<Tensor> ExplicitStepper::taped(const Field& f, const Tensor& y,
                                           const std::vector<double>& t,
                                           const std::vector<double>& h, const Tensor& rows) const {
  const Tensor step = column_of(h, y);
  std::vector<Tensor> k;
  for (int i = 0; i < tableau_.all(); ++i) {
    const auto& a = tableau_.a[size_t(i)];
    Tensor sum;
    for (size_t j = 0; j < k.size(); ++j) {
      if (a[j] == 0) continue;
      sum = sum.defined() ? sum + a[j] * k[j] : a[j] * k[j];
    }
    const Tensor state = sum.defined() ? y + step * sum : y;
    k.push_back(f(times_at(t, h, tableau_.c[size_t(i)], y), state, rows));
  }
  return k;
}

std::vector<double> ExplicitStepper::weights(double theta) const {
  return theta == 1 ? tableau_.b : weights_at(tableau_.dense, theta);
}

const Tableau* tableau_of(const OdeMethod& method) {
  if (std::holds_alternative<Tsit5>(method)) return &tsit5();
  if (std::holds_alternative<Dopri5>(method)) return &dopri5();
  if (std::holds_alternative<Dopri8>(method)) return &dopri8();
  if (std::holds_alternative<Bosh3>(method)) return &bosh3();
  if (std::holds_alternative<RungeKutta4>(method)) return &runge_kutta4();
  return nullptr;
}

std::unique_ptr<Stepper> stepper_of(const OdeMethod& method, const Field& f,
                                    const ops::Allowance& allowed) {
  const auto* fixed = std::get_if<RungeKutta4>(&method);
  const Tableau* tableau = tableau_of(method);
  if (std::holds_alternative<Rodas5P>(method)) return rodas5p(f, allowed);
  if (std::holds_alternative<Kvaerno5>(method)) return kvaerno5(f, allowed);
  return std::make_unique<ExplicitStepper>(*tableau, f, allowed, fixed ? fixed->steps : 0);
}

}  // namespace deq::ode
