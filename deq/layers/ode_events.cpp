#include "deq/layers/ode_events.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "deq/base/epsilon.h"

namespace deq::ode {

using at::Tensor;

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kRounding = 64 * kEpsilon;  // of g, relative to the largest |g| so far
constexpr double kAtStart = 64;              // roundings by which a start misses its event,
constexpr double kSoon = 0.01;               // and how much of the first step at most
constexpr int kRefinements = 4;              // of a point where g comes near to zero
constexpr int kRootSteps = 100;

bool same_side(double a, double b) { return (a > 0 && b > 0) || (a < 0 && b < 0); }

/// Zero beside `largest`, to rounding; of any size, products of tiny numbers are 0.
bool negligible(double g, double largest) { return g == 0 || std::abs(g) / largest <= kRounding; }

/// The vertex of the parabola through three points, whose g are not all 0.
double vertex(const std::pair<double, double>& a, const std::pair<double, double>& b,
              const std::pair<double, double>& c) {
  const double unit = std::max({std::abs(a.second), std::abs(b.second), std::abs(c.second)});
  const double left = (b.first - a.first) * (b.second / unit - c.second / unit);
  const double right = (b.first - c.first) * (b.second / unit - a.second / unit);
  return b.first -
         0.5 * ((b.first - a.first) * left - (b.first - c.first) * right) / (left - right);
}

}  // namespace

/// An interval in which g passes zero, and g at its ends.
struct Events::Bracket {
  int64_t row = 0;
  double a = 0, ga = 0, b = 0, gb = 0;
  double weight_a = 1, weight_b = 1;  // halved where an end stays: the Illinois method
  int side = 0;                       // of the end that moved last
  bool done() const { return gb == 0 || ga == 0 || std::abs(b - a) <= 2 * kEpsilon; }
  double root() const { return ga == 0 || std::abs(ga) < std::abs(gb) ? a : b; }
  /// The Illinois method's point, or the middle every third time. By the ratio of the ends alone:
  /// g may be of any size.
  double next(int step) const {
    const double ratio = std::abs(ga) / std::abs(gb) * (weight_a / weight_b);
    const double point = b + (a - b) / (1 + ratio);
    const bool inside = point > std::min(a, b) && point < std::max(a, b);
    return step % 3 == 2 || !inside ? 0.5 * (a + b) : point;
  }
  void take(double at, double value) {
    if (at == a || at == b) {  // nothing in between
      a = b = root();
    } else if (same_side(value, gb)) {
      b = at;
      gb = value;
      weight_b = 1;
      if (side == 1) weight_a /= 2;
      side = 1;
    } else {
      a = at;
      ga = value;
      weight_a = 1;
      if (side == -1) weight_b /= 2;
      side = -1;
    }
  }
};

Events::Events(const OdeEvent& event, int64_t samples, at::IntArrayRef shape, at::ScalarType type)
    : event_(event),
      shape_(shape.begin(), shape.end()),
      type_(type),
      rounding_(epsilon_of(type)),
      left_(size_t(samples), 0.0),
      largest_(size_t(samples), 0.0),
      size_at_start_(size_t(samples), 0.0),
      span_(size_t(samples), 0.0),
      slope_scale_(size_t(samples), 0.0),
      first_(size_t(samples), 1),
      found_(size_t(samples), 0),
      lost_(size_t(samples), 0) {
  shape_.insert(shape_.begin(), 0);
}

Tensor Events::evaluate(const Tensor& t, const Tensor& y, const Tensor& rows) const {
  std::vector<int64_t> shape = shape_;
  shape[0] = y.size(0);
  const Tensor value = event_.g(t, y.view(shape), rows);
  DEQ_CHECK(value.defined() && value.numel() == y.size(0) && value.scalar_type() == type_,
            "the event g(t, y) has shape [{}]; expected [{}] of the type of y",
            value.defined() ? fmt::format("{}", fmt::join(value.sizes(), ", ")) : "", y.size(0));
  return value.reshape({y.size(0)});
}

void Events::start(const Work& work, const std::vector<double>& spans) {
  const c10::AutoGradMode tape(true);
  const Tensor t = at::tensor(work.t, at::kDouble).to(work.y.options()).requires_grad_(true);
  const Tensor y = work.head(work.y).detach().clone().requires_grad_(true);
  const Tensor g = evaluate(t, y, work.index());
  Tensor size = at::zeros_like(t);
  if (g.requires_grad()) {
    const auto by = torch::autograd::grad({g.sum()}, {t, y}, {}, {}, false, /*unused=*/true);
    if (by[0].defined()) size = size + (by[0] * t).abs();
    if (by[1].defined()) size = size + (by[1] * y).abs().sum(1);
  }
  const Tensor values = g.detach().to(at::kCPU, at::kDouble);
  size = size.detach().to(at::kCPU, at::kDouble);
  for (size_t r = 0; r < work.sample.size(); ++r) {
    const auto b = size_t(work.sample[r]);
    left_[b] = values[int64_t(r)].item<double>();
    largest_[b] = std::abs(left_[b]);
    lost_[b] = !std::isfinite(left_[b]);
    size_at_start_[b] = size[int64_t(r)].item<double>();
    span_[b] = spans[r];
  }
}

bool Events::starts_at_zero(size_t sample, double h, const Samples& seen) const {
  const double left = left_[sample];
  double speed = 0;  // of g, by steps
  for (const auto& [theta, g] : seen) speed = std::max(speed, std::abs(g - left) / theta);
  const double roundings = kAtStart * rounding_;
  const double time = std::min(roundings * span_[sample], kSoon * std::abs(h));
  return std::abs(left) <= roundings * size_at_start_[sample] + speed * (time / std::abs(h));
}

std::vector<double> Events::at_probes(const Work& work, const Stepper& stepper,
                                      const std::vector<Probe>& probes) const {
  const auto count = int64_t(probes.size());
  const Tensor y = at::empty({count, work.y.size(1)}, work.y.options());
  std::vector<ops::StagePoint> points;
  std::vector<double> weights, t;
  std::vector<int64_t> samples;
  std::vector<std::pair<double, std::vector<double>>> known;  // probes share their thetas
  for (int64_t p = 0; p < count; ++p) {
    const Probe& probe = probes[size_t(p)];
    const auto r = size_t(probe.row);
    auto own = std::find_if(known.begin(), known.end(),
                            [&](const auto& entry) { return entry.first == probe.theta; });
    if (own == known.end()) {
      known.emplace_back(probe.theta, stepper.weights(probe.theta));
      own = known.end() - 1;
    }
    weights.insert(weights.end(), own->second.begin(), own->second.end());
    points.push_back({probe.row, p, work.scale[r]});
    t.push_back(work.t[r] + probe.theta * work.h[r]);
    samples.push_back(work.sample[r]);
  }
  ops::stage_points(y, work.y, work.k, points, weights);
  const Tensor g = evaluate(at::tensor(t, at::kDouble).to(y.options()), y,
                            at::tensor(samples, at::kLong).to(y.device()))
                       .to(at::kCPU, at::kDouble)
                       .contiguous();
  return {g.data_ptr<double>(), g.data_ptr<double>() + count};
}

bool Events::crosses(double before, double after) const {
  const bool rises = before < 0 && after >= 0, falls = before > 0 && after <= 0;
  return event_.crossing == Crossing::Any      ? rises || falls
         : event_.crossing == Crossing::Rising ? rises
                                               : falls;
}

void Events::look_closer(const Work& work, const Stepper& stepper, std::vector<Samples>& seen,
                         const std::vector<int64_t>& rows) const {
  for (int round = 0; round < kRefinements; ++round) {
    std::vector<Probe> probes;
    for (const int64_t row : rows) {
      const Samples& own = seen[size_t(row)];
      for (size_t i = 1; i + 1 < own.size(); ++i) {
        const double before = own[i - 1].second, here = own[i].second, after = own[i + 1].second;
        const bool near = same_side(here, before) && same_side(here, after) &&
                          std::abs(here) <= std::abs(before) && std::abs(here) <= std::abs(after);
        if (!near) continue;
        const double theta = vertex(own[i - 1], own[i], own[i + 1]);
        if (theta > own[i - 1].first && theta < own[i + 1].first && theta != own[i].first)
          probes.push_back({row, theta});
      }
    }
    if (probes.empty()) return;
    const std::vector<double> g = at_probes(work, stepper, probes);
    for (size_t p = 0; p < probes.size(); ++p) {
      Samples& own = seen[size_t(probes[p].row)];
      // A touch, to rounding, is a zero.
      const double largest = largest_[size_t(work.sample[size_t(probes[p].row)])];
      const double value = negligible(g[p], largest) ? 0 : g[p];
      own.insert(std::lower_bound(own.begin(), own.end(), std::pair{probes[p].theta, value}),
                 {probes[p].theta, value});
    }
  }
}

auto Events::look(const Work& work, const Stepper& stepper, const std::vector<int64_t>& rows)
    -> std::vector<Samples> {
  std::vector<Samples> seen(size_t(work.rows));
  std::vector<Probe> probes;
  for (const int64_t row : rows) {
    for (int64_t i = 1; i <= event_.probes; ++i)
      probes.push_back({row, double(i) / double(event_.probes)});
  }
  const std::vector<double> g = at_probes(work, stepper, probes);
  for (size_t p = 0; p < probes.size(); ++p)
    seen[size_t(probes[p].row)].emplace_back(probes[p].theta, g[p]);
  for (const int64_t row : rows) {
    Samples& own = seen[size_t(row)];
    const auto sample = size_t(work.sample[size_t(row)]);
    for (const auto& point : own)
      largest_[sample] = std::max(largest_[sample], std::abs(point.second));
    double& left = left_[sample];
    if (first_[sample] && starts_at_zero(sample, work.h[size_t(row)], own)) left = 0;
    first_[sample] = 0;
    own.insert(own.begin(), {0.0, left});
    left = own.back().second;
  }
  look_closer(work, stepper, seen, rows);
  return seen;
}

bool Events::ends_at_zero(const Samples& seen, double largest) const {
  const double last = seen.back().second, before = seen[seen.size() - 2].second;
  return negligible(last, largest) && same_side(before, last) &&
         std::abs(last) < std::abs(before) && crosses(before, 0);
}

void Events::narrow(const Work& work, const Stepper& stepper, std::vector<Bracket>& brackets) {
  for (int step = 0; step < kRootSteps; ++step) {
    std::vector<Probe> probes;
    std::vector<Bracket*> open;
    for (Bracket& bracket : brackets) {
      if (bracket.done()) continue;
      open.push_back(&bracket);
      probes.push_back({bracket.row, bracket.next(step)});
    }
    if (open.empty()) return;
    const std::vector<double> values = at_probes(work, stepper, probes);
    for (size_t p = 0; p < open.size(); ++p) open[p]->take(probes[p].theta, values[p]);
  }
}

std::vector<double> Events::find(const Work& work, const Stepper& stepper,
                                 const std::vector<char>& accepted, const std::vector<char>& ends) {
  std::vector<int64_t> rows;
  for (size_t r = 0; r < accepted.size(); ++r) {
    if (accepted[r]) rows.push_back(int64_t(r));
  }
  const std::vector<Samples> seen = look(work, stepper, rows);
  std::vector<double> theta(size_t(work.rows), -1);
  std::vector<Bracket> brackets;
  for (const int64_t row : rows) {
    const Samples& own = seen[size_t(row)];
    const auto sample = size_t(work.sample[size_t(row)]);
    size_t i = 1;
    while (i < own.size() && !crosses(own[i - 1].second, own[i].second)) ++i;
    if (i < own.size()) {
      brackets.push_back({row, own[i - 1].first, own[i - 1].second, own[i].first, own[i].second});
      continue;
    }
    for (const auto& point : own) lost_[sample] |= !std::isfinite(point.second);
    if (ends[size_t(row)] && ends_at_zero(own, largest_[sample])) theta[size_t(row)] = 1;
  }
  narrow(work, stepper, brackets);
  for (const Bracket& bracket : brackets)
    theta[size_t(bracket.row)] = std::clamp(bracket.root(), kEpsilon, 1.0);
  for (const int64_t row : rows) {
    const auto r = size_t(row), sample = size_t(work.sample[r]);
    if (theta[r] < 0) continue;
    found_[sample] = 1;
    double largest = 0;
    for (const auto& point : seen[r]) largest = std::max(largest, std::abs(point.second));
    slope_scale_[sample] = largest / std::abs(work.h[r]);
  }
  return theta;
}

}  // namespace deq::ode
