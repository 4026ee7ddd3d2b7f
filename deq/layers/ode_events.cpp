#include "deq/layers/ode_events.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace deq::ode {

using at::Tensor;

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();
constexpr double kRounding = 64 * kEpsilon;  // of g, relative to the largest |g| so far
constexpr int kRefinements = 4;              // of a point where g comes near to zero
constexpr int kRootSteps = 100;

using Samples = std::vector<std::pair<double, double>>;  // (theta, g), by theta

/// The vertex of the parabola through three points.
double vertex(const std::pair<double, double>& a, const std::pair<double, double>& b,
              const std::pair<double, double>& c) {
  const double left = (b.first - a.first) * (b.second - c.second);
  const double right = (b.first - c.first) * (b.second - a.second);
  return b.first -
         0.5 * ((b.first - a.first) * left - (b.first - c.first) * right) / (left - right);
}

/// An interval in which g passes zero, and g at its ends.
struct Bracket {
  int64_t row = 0;
  double a = 0, ga = 0, b = 0, gb = 0;
  int side = 0;  // of the end that stayed last
  bool done() const { return gb == 0 || ga == 0 || std::abs(b - a) <= 2 * kEpsilon; }
  double root() const { return ga == 0 || std::abs(ga) < std::abs(gb) ? a : b; }
  /// The Illinois method's point, or the middle every third time.
  double next(int step) const {
    const double point = b - gb * (b - a) / (gb - ga);
    const bool inside = point > std::min(a, b) && point < std::max(a, b);
    return step % 3 == 2 || !inside ? 0.5 * (a + b) : point;
  }
};

}  // namespace

Events::Events(const OdeEvent& event, int64_t samples, at::IntArrayRef shape, at::ScalarType type,
               const ops::Allowance& allowed)
    : event_(event),
      shape_(shape.begin(), shape.end()),
      type_(type),
      relative_(allowed.relative),
      absolute_(allowed.absolute.numel() ? allowed.absolute.max().item<double>() : 0),
      left_(size_t(samples), 0.0),
      largest_(size_t(samples), 0.0),
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

void Events::start(const Work& work) {
  const Tensor t = at::tensor(work.t, at::kDouble).to(work.y.options());
  const Tensor g = evaluate(t, work.head(work.y), work.index()).to(at::kCPU, at::kDouble);
  for (size_t r = 0; r < work.sample.size(); ++r) {
    const auto b = size_t(work.sample[r]);
    left_[b] = g[int64_t(r)].item<double>();
    largest_[b] = std::abs(left_[b]);
    lost_[b] = !std::isfinite(left_[b]);
  }
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
        const bool near = here * before > 0 && here * after > 0 &&
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
      const double value = std::abs(g[p]) <= kRounding * largest ? 0 : g[p];
      own.insert(std::lower_bound(own.begin(), own.end(), std::pair{probes[p].theta, value}),
                 {probes[p].theta, value});
    }
  }
}

std::vector<double> Events::find(const Work& work, const Stepper& stepper,
                                 const std::vector<char>& accepted, const std::vector<char>& ends) {
  const auto b = size_t(work.rows);
  std::vector<Samples> seen(b);
  std::vector<int64_t> rows;
  std::vector<Probe> probes;
  for (size_t r = 0; r < b; ++r) {
    if (!accepted[r]) continue;
    rows.push_back(int64_t(r));
    for (int64_t i = 1; i <= event_.probes; ++i)
      probes.push_back({int64_t(r), double(i) / double(event_.probes)});
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
    if (first_[sample] && std::abs(left) <= absolute_ + relative_ * largest_[sample]) left = 0;
    first_[sample] = 0;
    own.insert(own.begin(), {0.0, left});
  }
  look_closer(work, stepper, seen, rows);

  std::vector<double> theta(b, -1);
  std::vector<Bracket> brackets;
  for (const int64_t row : rows) {
    const Samples& own = seen[size_t(row)];
    const auto sample = size_t(work.sample[size_t(row)]);
    left_[sample] = own.back().second;
    size_t i = 1;
    while (i < own.size() && !crosses(own[i - 1].second, own[i].second)) ++i;
    if (i < own.size()) {
      brackets.push_back({row, own[i - 1].first, own[i - 1].second, own[i].first, own[i].second});
      continue;
    }
    for (const auto& point : own) lost_[sample] |= !std::isfinite(point.second);
    if (ends[size_t(row)]) {
      const double last = own.back().second, before = own[own.size() - 2].second;
      const bool reached = std::abs(last) <= kRounding * largest_[sample] && before * last >= 0 &&
                           std::abs(last) < std::abs(before) && crosses(before, 0);
      if (reached) theta[size_t(row)] = 1;
    }
  }
  for (int step = 0; step < kRootSteps; ++step) {
    probes.clear();
    std::vector<Bracket*> open;
    for (Bracket& bracket : brackets) {
      if (bracket.done()) continue;
      open.push_back(&bracket);
      probes.push_back({bracket.row, bracket.next(step)});
    }
    if (open.empty()) break;
    const std::vector<double> values = at_probes(work, stepper, probes);
    for (size_t p = 0; p < open.size(); ++p) {
      Bracket& own = *open[p];
      const double at = probes[p].theta, value = values[p];
      if (at == own.a || at == own.b) {  // nothing in between
        own.a = own.b = own.root();
      } else if (value * own.gb > 0) {
        own.b = at;
        own.gb = value;
        if (own.side == 1) own.ga /= 2;
        own.side = 1;
      } else {
        own.a = at;
        own.ga = value;
        if (own.side == -1) own.gb /= 2;
        own.side = -1;
      }
    }
  }
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
