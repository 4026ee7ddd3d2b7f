#include "deq/layers/ode_event_end.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>

namespace deq::ode {

using at::Tensor;

namespace {

/// g_t + g_y f along the solution.
Tensor slope_of_g(const Events& events, const Tensor& f, const Tensor& t, const Tensor& y,
                  const Tensor& rows) {
  const c10::AutoGradMode tape(true);
  const Tensor leaf_t = t.detach().requires_grad_(true);
  const Tensor leaf_y = y.detach().requires_grad_(true);
  const Tensor g = events.evaluate(leaf_t, leaf_y, rows);
  Tensor slope = at::zeros_like(t);
  if (!g.requires_grad()) return slope;
  const auto found =
      torch::autograd::grad({g.sum()}, {leaf_t, leaf_y}, {}, {}, false, /*unused=*/true);
  if (found[0].defined()) slope = slope + found[0];
  if (found[1].defined()) slope = slope + (found[1] * f).sum(1);
  return slope.detach();
}

Tensor slope_of_y(const Field& f, const Tensor& t, const Tensor& y, const Tensor& rows) {
  const c10::AutoGradMode no_tape(false);
  return f(t, y, rows).clone();
}

}  // namespace

EventEnd end_of_events(const Problem& p, const Events& events, const Field& f, double grazing,
                       const Tensor& state, const Outcome& outcome) {
  EventEnd end;
  end.time = at::tensor(outcome.reached, at::kDouble).to(p.y0.options().requires_grad(false));
  end.y = state;
  end.grazes.assign(size_t(p.B), 0);
  std::vector<int64_t> rows;
  for (int64_t b = 0; b < p.B; ++b) {
    if (events.found()[size_t(b)]) rows.push_back(b);
  }
  if (rows.empty()) return end;
  const Tensor index = at::tensor(rows, at::kLong).to(state.device());
  const Tensor t = end.time.index_select(0, index), y = state.index_select(0, index);
  const Tensor f_there = slope_of_y(f, t, y.detach(), index);
  const Tensor slope = slope_of_g(events, f_there, t, y, index);
  const Tensor inverse = -1 / slope;  // beyond all numbers where g is smaller than 1 / the largest
  const Tensor host =
      slope.masked_fill(inverse.isfinite().logical_not(), 0).to(at::kCPU, at::kDouble);
  std::vector<char> keeps(rows.size(), 0);
  for (size_t r = 0; r < rows.size(); ++r) {
    const auto b = size_t(rows[r]);
    const double d = std::abs(host[int64_t(r)].item<double>());
    keeps[r] = std::isfinite(d) && d > grazing * events.slope_scale()[b];
    end.grazes[b] = !keeps[r];
  }
  end.y = at::where(flags(end.grazes, state).unsqueeze(1), state.detach(), state);
  if (!c10::GradMode::is_enabled()) return end;
  const Tensor g = events.evaluate(t, y, index);
  if (!g.requires_grad()) return end;
  const Tensor kept = flags(keeps, state), zero = at::zeros_like(slope);
  const Tensor moved = at::where(kept, g - g.detach(), zero) * at::where(kept, inverse, zero);
  end.time = end.time.index_add(0, index, moved);
  end.y = end.y.index_add(
      0, index, f_there.masked_fill(kept.logical_not().unsqueeze(1), 0) * moved.unsqueeze(1));
  return end;
}

}  // namespace deq::ode
