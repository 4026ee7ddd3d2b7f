#include "deq/layers/ode_continuous.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace deq::ode {

using at::Tensor;

Path::Path(int64_t samples, int64_t width, int64_t stages, const at::TensorOptions& options)
    : steps_(size_t(samples)),
      y_(at::empty({64, width}, options)),
      k_(at::empty({stages, 64, width}, options)) {}

void Path::see(const Work& work, const std::vector<char>& accepted) {
  std::vector<int64_t> rows;
  for (size_t r = 0; r < accepted.size(); ++r) {
    if (!accepted[r]) continue;
    steps_[size_t(work.sample[r])].push_back(
        {work.t[r], work.h[r], work.scale[r], count_ + int64_t(rows.size())});
    rows.push_back(int64_t(r));
  }
  const auto added = int64_t(rows.size());
  while (count_ + added > y_.size(0)) {
    y_ = at::cat({y_, at::empty_like(y_)});
    k_ = at::cat({k_, at::empty_like(k_)}, 1);
  }
  const Tensor from = at::tensor(rows, at::kLong).to(y_.device());
  y_.narrow(0, count_, added).copy_(work.y.index_select(0, from));
  k_.narrow(1, count_, added).copy_(work.k.index_select(1, from));
  count_ += added;
}

Tensor Path::at_times(const Stepper& stepper, const std::vector<double>& t,
                      const std::vector<int64_t>& samples) const {
  const Tensor y = at::empty({int64_t(t.size()), y_.size(1)}, y_.options());
  std::vector<ops::StagePoint> points;
  std::vector<double> weights;
  for (size_t r = 0; r < t.size(); ++r) {
    const auto& steps = steps_[size_t(samples[r])];
    const double way = steps.front().h > 0 ? 1 : -1;
    auto step = std::partition_point(steps.begin(), steps.end(),
                                     [&](const Step& one) { return way * one.t <= way * t[r]; });
    if (step != steps.begin()) --step;
    const double theta = std::clamp((t[r] - step->t) / step->h, 0.0, 1.0);
    const auto own = stepper.weights(theta);
    weights.insert(weights.end(), own.begin(), own.end());
    points.push_back({step->place, int64_t(r), step->scale});
  }
  ops::stage_points(y, y_, k_, points, weights);
  return y;
}

namespace {

/// Gauss and Legendre's points and weights in (0, 1), four of them.
constexpr double kPoints[] = {0.06943184420297371, 0.33000947820757187, 0.6699905217924281,
                              0.9305681557970263};
constexpr double kWeights[] = {0.17392742256872692, 0.32607257743127305, 0.32607257743127305,
                               0.17392742256872692};

std::vector<double> numbers_of(const Tensor& t) {
  const Tensor host = t.to(at::kCPU, at::kDouble).contiguous();
  return {host.data_ptr<double>(), host.data_ptr<double>() + host.numel()};
}

std::vector<int64_t> samples_of(const Tensor& rows) {
  const Tensor host = rows.to(at::kCPU).contiguous();
  return {host.data_ptr<int64_t>(), host.data_ptr<int64_t>() + host.numel()};
}

class ContinuousAdjoint : public Adjoint {
 public:
  explicit ContinuousAdjoint(Continuous along) : along_(std::move(along)) {}

  Tensor pull(const Tensor& grad, TapedField& f) override {
    n_ = grad.size(2);
    const int64_t B = grad.size(1);
    // The equation is linear: each sample is solved at the size of its own gradient.
    scale_ = n_ > 0 ? grad.abs().amax(at::IntArrayRef{0, 2}) : at::zeros({B}, grad.options());
    scale_ = at::where(scale_ > 0, scale_, at::ones_like(scale_)).unsqueeze(1);
    Tensor lambda = at::zeros({B, n_}, grad.options());
    size_t longest = 0;
    for (const auto& places : along_.record.places) longest = std::max(longest, places.size());
    std::vector<char> lost(size_t(B), 0);
    for (size_t leg = 0; leg < longest; ++leg) {
      for (int64_t b = 0; b < B; ++b) {
        const auto& places = along_.record.places[size_t(b)];
        if (leg >= places.size()) continue;
        lambda[b].add_(grad[places[places.size() - 1 - leg].slot][b] / scale_[b]);
      }
      if (leg + 1 < longest) lambda = solve_leg(leg, lambda, f, lost);
    }
    for (int64_t b = 0; b < B; ++b) {
      if (!lost[size_t(b)]) continue;
      lambda[b].fill_(std::numeric_limits<double>::quiet_NaN());
      f.spoil();
    }
    return lambda * scale_;
  }

 private:
  double time_of(int64_t b, const Place& place) const {
    if (place.step < 0) return along_.times.at(0, b);
    if (place.slot < along_.times.count) return along_.times.at(place.slot, b);
    const auto& record = along_.record;
    return record.t[size_t(b)][size_t(place.step)] +
           place.theta * record.h[size_t(b)][size_t(place.step)];
  }

  /// From every sample's output number `leg` from the end to the one before it.
  Tensor solve_leg(size_t leg, const Tensor& lambda, TapedField& f, std::vector<char>& lost) {
    const int64_t B = lambda.size(0);
    Course course;
    course.times = {std::vector<double>(size_t(2 * B), 0.0), 2, B};
    Tensor start = lambda;
    if (!along_.path) start = at::cat({at::zeros_like(lambda), lambda}, 1);
    bool any = false;
    for (int64_t b = 0; b < B; ++b) {
      const auto& places = along_.record.places[size_t(b)];
      if (leg + 1 >= places.size() || lost[size_t(b)]) continue;
      const Place& from = places[places.size() - 1 - leg];
      course.times.values[size_t(b)] = time_of(b, from);
      course.times.values[size_t(B + b)] = time_of(b, places[places.size() - 2 - leg]);
      any |= course.times.at(0, b) != course.times.at(1, b);
      if (!along_.path) start[b].narrow(0, 0, n_).copy_(along_.values[from.slot][b]);
    }
    if (!any) return lambda;
    const Field equation = along_.path ? along_path(f) : with_state(f);
    course.allowed.relative = along_.rel_tol;
    course.allowed.absolute = at::full({n_}, 1e-2 * along_.rel_tol, at::kDouble);
    if (!along_.path)
      course.allowed.absolute = at::cat({along_.allowed.absolute, course.allowed.absolute});
    course.max_steps = along_.max_steps;
    course.max_step = along_.max_step;
    course.outputs = start.size(1);
    course.extend = true;
    const OdeMethod method = tableau_of(along_.method) ? along_.method : OdeMethod(Kvaerno5{});
    auto stepper = stepper_of(method, equation, course.allowed);
    course.on_step = [&](Work& work, const std::vector<char>& accepted) {
      add_parameters(work, accepted, *stepper, f);
    };
    const Outcome found = drive(*stepper, equation, start, {}, course);
    for (int64_t b = 0; b < B; ++b) lost[size_t(b)] |= found.reason[size_t(b)] != Reason::Converged;
    return found.last.narrow(1, along_.path ? 0 : n_, n_).contiguous();
  }

  /// lambda' along the kept path.
  Field along_path(TapedField& f) const {
    OdeFunction equation = [this, &f](const Tensor& t, const Tensor& lambda, const Tensor& rows) {
      const Tensor y = along_.path->at_times(*along_.stepper, numbers_of(t), samples_of(rows));
      return -f.pull(f(t, y, rows), {lambda}, /*sums=*/false);
    };
    equation.set_jacobian([this, &f](const Tensor& t, const Tensor&, const Tensor& rows) {
      const Tensor y = along_.path->at_times(*along_.stepper, numbers_of(t), samples_of(rows));
      const Tensor J = f.field().jacobian(t, y, rows).y.detach();
      return OdeFunction::Jacobian{-J.transpose(1, 2).contiguous()};
    });
    return Field(std::move(equation), {n_}, along_.values.scalar_type());
  }

  /// [y, lambda]'.
  Field with_state(TapedField& f) const {
    return Field(
        [this, &f](const Tensor& t, const Tensor& state, const Tensor& rows) {
          const auto at = f(t, state.narrow(1, 0, n_).contiguous(), rows);
          const Tensor slope = at.values[0].detach().clone();
          const Tensor lambda = state.narrow(1, n_, n_).contiguous();
          return at::cat({slope, -f.pull(at, {lambda}, /*sums=*/false)}, 1);
        },
        {2 * n_}, along_.values.scalar_type());
  }

  /// Adds -h times the integral of lambda^T df/dtheta over the accepted steps (h < 0 where times
  /// rise), all points of all rows in one evaluation.
  void add_parameters(const Work& work, const std::vector<char>& accepted, const Stepper& stepper,
                      TapedField& f) const {
    std::vector<ops::StagePoint> points;
    std::vector<double> weights, t, factor;
    std::vector<int64_t> samples;
    for (size_t g = 0; g < 4; ++g) {
      const auto own = stepper.weights(kPoints[g]);
      for (size_t r = 0; r < accepted.size(); ++r) {
        if (!accepted[r]) continue;
        points.push_back({int64_t(r), int64_t(points.size()), work.scale[r]});
        weights.insert(weights.end(), own.begin(), own.end());
        t.push_back(work.t[r] + kPoints[g] * work.h[r]);
        factor.push_back(-work.h[r] * kWeights[g]);
        samples.push_back(work.sample[r]);
      }
    }
    const Tensor state = at::empty({int64_t(points.size()), work.y.size(1)}, work.y.options());
    ops::stage_points(state, work.y, work.k, points, weights);
    const Tensor y = along_.path ? along_.path->at_times(*along_.stepper, t, samples)
                                 : state.narrow(1, 0, n_).contiguous();
    const Tensor rows = at::tensor(samples, at::kLong).to(y.device());
    const Tensor u = state.narrow(1, along_.path ? 0 : n_, n_) * column_of(factor, y) *
                     scale_.index_select(0, rows);
    f.pull(f(at::tensor(t, at::kDouble).to(y.options()), y, rows), {u});
  }

  Continuous along_;
  int64_t n_ = 0;
  Tensor scale_;  // (B, 1)
};

}  // namespace

std::unique_ptr<Adjoint> continuous_adjoint(Continuous along) {
  return std::make_unique<ContinuousAdjoint>(std::move(along));
}

}  // namespace deq::ode
