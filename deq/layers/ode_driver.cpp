#include "deq/layers/ode_driver.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <cmath>
#include <cstring>

#include "deq/layers/ode_control.h"
#include "deq/layers/ode_events.h"

namespace deq::ode {

using at::Tensor;

Outcome::Outcome(int64_t samples, int64_t slots, int64_t outputs, const at::TensorOptions& options)
    : values(at::zeros({slots, samples, outputs}, options)),
      reason(size_t(samples), Reason::Converged),
      reached(size_t(samples), 0.0),
      residual(size_t(samples), 0.0),
      accepted(size_t(samples), 0),
      rejected(size_t(samples), 0),
      record(samples) {}

namespace {

/// What the loop knows of a sample.
struct Way {
  Control control;
  double end = 0, next = 0;  // the last time; the step that is wanted
  int64_t slot = 1;          // the first output that is open
  int64_t in_interval = 0;   // steps since the last time, where their number is fixed
  bool meets = false;        // the step ends at `target`
  double target = 0;
};

class Drive {
 public:
  Drive(Stepper& stepper, const Field& f, const Tensor& y0, const Course& course)
      : stepper_(stepper),
        f_(f),
        course_(course),
        work_(y0.size(0), y0.size(1), stepper.stages(), y0.options()),
        found_(y0.size(0), course.times.count + (course.events ? 1 : 0), course.outputs,
               y0.options()),
        ways_(size_t(y0.size(0))) {
    found_.last = y0.clone();
    if (course.keep_states) found_.states = Checkpoints(y0.size(0), y0.size(1), y0.options());
  }

  Outcome run(const Tensor& y0, const Tensor& slope) {
    begin(y0, slope);
    while (work_.rows > 0) step();
    return std::move(found_);
  }

 private:
  const Times& times() const { return course_.times; }
  int64_t sample(size_t r) const { return work_.sample[r]; }
  Way& way(size_t r) { return ways_[size_t(sample(r))]; }

  void begin(const Tensor& y0, const Tensor& slope) {
    std::vector<int64_t> rows;
    const Tensor finite = y0.isfinite().all(1).to(at::kCPU).contiguous();
    for (int64_t b = 0; b < y0.size(0); ++b) {
      if (!finite.data_ptr<bool>()[b]) {
        found_.reason[size_t(b)] = Reason::NonFinite;
        found_.last[b].zero_();
      } else {
        found_.record.places[size_t(b)].push_back({0, -1, 1});
        rows.push_back(b);
      }
      found_.reached[size_t(b)] = times().at(0, b);
    }
    found_.values.copy_(found_.last.narrow(1, 0, course_.outputs).expand_as(found_.values));
    work_.fill(rows, y0);
    for (size_t r = 0; r < rows.size(); ++r) {
      work_.t[r] = times().at(0, rows[r]);
      Way& own = way(r);
      own.end = times().at(times().count - 1, rows[r]);
      pass_times_at_start(rows[r], own);
    }
    std::vector<char> stays(rows.size(), 0);
    for (size_t r = 0; r < rows.size(); ++r) {
      stays[r] = way(r).slot < times().count;
      if (course_.keep_states) found_.states.see(rows[r], 0, work_.y, int64_t(r));
    }
    drop(stays);
    if (work_.rows == 0) return;
    if (slope.defined()) {
      store(work_.k, 0, slope.index_select(0, work_.index()), work_.rows);
      work_.known.assign(size_t(work_.rows), 1);
    }
    if (course_.events) start_events();
    if (!stepper_.fixed()) first_steps();
  }

  void start_events() {
    std::vector<double> spans;
    for (size_t r = 0; r < work_.sample.size(); ++r)
      spans.push_back(std::abs(way(r).end - work_.t[r]));
    course_.events->start(work_, spans);
  }

  void pass_times_at_start(int64_t sample, Way& own) {
    while (own.slot < times().count && times().at(own.slot, sample) == times().at(0, sample)) {
      if (course_.keep_record) found_.record.places[size_t(sample)].push_back({own.slot, -1, 1});
      ++own.slot;
    }
  }

  /// Steps by the sizes of y, f and a trial step's f: one evaluation, two where k_0 is not known.
  void first_steps() {
    const auto b = size_t(work_.rows);
    if (!work_.known[0]) {
      store(work_.k, 0, f_(work_.times(0), work_.head(work_.y), work_.index()), work_.rows);
      work_.known.assign(b, 1);
    }
    const Tensor first = work_.k[0];
    const auto size_y = ops::allowed_norm(work_.y, work_.y, course_.allowed, work_.rows);
    const auto size_f = ops::allowed_norm(first, work_.y, course_.allowed, work_.rows);
    std::vector<double> trial(b);
    for (size_t r = 0; r < b; ++r) {
      const double span = way(r).end - work_.t[r];
      trial[r] = std::copysign(trial_step(size_y[r], size_f[r], std::abs(span)), span);
      if (!std::isfinite(trial[r])) trial[r] = 0;
    }
    work_.h = trial;
    ops::stage_sum(work_.next, work_.y, work_.k, {1.0}, trial, work_.rows);
    const Tensor there = f_(work_.times(1), work_.head(work_.next), work_.index());
    const auto change = ops::allowed_norm((there - work_.head(first)).contiguous(), work_.y,
                                          course_.allowed, work_.rows);
    for (size_t r = 0; r < b; ++r) {
      const double span = way(r).end - work_.t[r];
      const double size = std::isfinite(change[r])
                              ? first_step(std::abs(trial[r]), size_f[r], change[r],
                                           stepper_.error_order(), std::abs(span))
                              : std::abs(trial[r]);
      way(r).next = std::copysign(size, span);
    }
  }

  /// h of every row: what is wanted, but not past what must be met.
  void choose_steps() {
    for (size_t r = 0; r < work_.sample.size(); ++r) {
      Way& own = way(r);
      const int64_t fixed = stepper_.fixed();
      own.target = stepper_.lands() ? times().at(own.slot, sample(r)) : own.end;
      const double left = own.target - work_.t[r];
      if (fixed) own.next = left / double(fixed - own.in_interval);
      if (std::abs(own.next) > course_.max_step)
        own.next = std::copysign(course_.max_step, own.next);
      own.meets =
          fixed ? own.in_interval + 1 == fixed : std::abs(own.next) * 1.01 >= std::abs(left);
      work_.h[r] = own.meets ? left : own.next;
    }
  }

  void step() {
    choose_steps();
    const std::vector<double> errors = stepper_.attempt(work_);
    const auto b = size_t(work_.rows);
    std::vector<char> accepted(b, 0), stays(b, 1), ends(b, 0);
    bool any = false, inner = course_.extend || course_.events;
    for (size_t r = 0; r < b; ++r) {
      accepted[r] = judge(r, errors[r], stays);
      if (!accepted[r]) continue;
      any = true;
      ends[r] = way(r).meets && way(r).target == way(r).end;
      inner |= !stepper_.lands() && has_inner_output(r);
    }
    std::vector<double> event(b, -1);
    if (any) {
      if (inner) stepper_.extend(work_);
      if (course_.events) event = course_.events->find(work_, stepper_, accepted, ends);
      if (course_.on_step) course_.on_step(work_, accepted);
      emit(accepted, event);
      stepper_.advance(work_, accepted);
      finish(accepted, event, ends, stays);
    }
    drop(stays);
  }

  double after(size_t r) { return way(r).meets ? way(r).target : work_.t[r] + work_.h[r]; }

  bool has_inner_output(size_t r) {
    const Way& own = way(r);
    if (own.slot >= times().count) return false;
    const double time = times().at(own.slot, sample(r)), end = after(r);
    return work_.h[r] > 0 ? time < end : time > end;
  }

  /// Whether the step is taken; the size of the next one.
  bool judge(size_t r, double error, std::vector<char>& stays) {
    const auto b = size_t(sample(r));
    Way& own = way(r);
    if (found_.accepted[b] + found_.rejected[b] >= course_.max_steps) {
      found_.reason[b] = Reason::MaxSteps;
      stays[r] = 0;
      return false;
    }
    if (stepper_.fixed()) {
      if (std::isfinite(error)) return true;
      found_.reason[b] = Reason::NonFinite;
      stays[r] = 0;
      return false;
    }
    const double factor = own.control.factor(error, stepper_.error_order());
    const bool taken = error <= 1;
    const double wanted = work_.h[r] * factor;
    // A step that was cut says nothing against the one that was wanted.
    const bool longer = std::abs(wanted) >= std::abs(own.next);
    if (!taken || !own.meets || longer) own.next = wanted;
    if (taken) {
      found_.residual[b] = std::max(found_.residual[b], error * course_.allowed.relative);
      return true;
    }
    ++found_.rejected[b];
    if (std::abs(own.next) < least_step(work_.t[r], own.end)) {
      found_.reason[b] = std::isfinite(error) ? Reason::StepUnderflow : Reason::NonFinite;
      stays[r] = 0;
    }
    return false;
  }

  /// Outputs of the accepted steps, up to an event.
  void emit(const std::vector<char>& accepted, const std::vector<double>& event) {
    std::vector<ops::StagePoint> points;
    std::vector<double> weights;
    const auto add = [&](size_t r, int64_t slot, double theta) {
      const int64_t b = sample(r);
      if (course_.keep_record)
        found_.record.places[size_t(b)].push_back({slot, found_.record.steps(b), theta});
      if (theta == 1) {
        copy_output(slot, b, r);
        return;
      }
      const auto own = stepper_.weights(theta);
      points.push_back({int64_t(r), slot * work_.y.size(0) + b, work_.scale[r]});
      weights.insert(weights.end(), own.begin(), own.end());
    };
    for (size_t r = 0; r < accepted.size(); ++r) {
      if (!accepted[r]) continue;
      Way& own = way(r);
      const double start = work_.t[r], h = work_.h[r], end = after(r);
      const double limit = event[r] < 0 ? end : start + event[r] * h;
      for (; own.slot < times().count; ++own.slot) {
        const double time = times().at(own.slot, sample(r));
        if (h > 0 ? time > limit : time < limit) break;
        add(r, own.slot, time == end ? 1.0 : (time - start) / h);
      }
      if (event[r] >= 0) add(r, times().count, event[r]);
    }
    if (!points.empty()) ops::stage_points(found_.values, work_.y, work_.k, points, weights);
  }

  void copy_output(int64_t slot, int64_t b, size_t r) {
    const int64_t width = work_.y.size(1), n = course_.outputs;
    if (n == 0) return;
    if (!work_.y.is_cpu()) {
      found_.values[slot][b].copy_(work_.next[int64_t(r)].narrow(0, 0, n));
      return;
    }
    const auto size = size_t(work_.y.element_size());
    std::memcpy(static_cast<char*>(found_.values.data_ptr()) +
                    size_t((slot * work_.y.size(0) + b) * n) * size,
                static_cast<const char*>(work_.next.data_ptr()) + size_t(int64_t(r) * width) * size,
                size_t(n) * size);
  }

  /// After y is the state behind the step: times, records, and who is done.
  void finish(const std::vector<char>& accepted, const std::vector<double>& event,
              const std::vector<char>& ends, std::vector<char>& stays) {
    for (size_t r = 0; r < accepted.size(); ++r) {
      if (!accepted[r]) continue;
      const auto b = size_t(sample(r));
      Way& own = way(r);
      if (course_.keep_record) {
        found_.record.t[b].push_back(work_.t[r]);
        found_.record.h[b].push_back(work_.h[r]);
      }
      found_.reached[b] = event[r] < 0 ? after(r) : work_.t[r] + event[r] * work_.h[r];
      work_.t[r] = after(r);
      own.in_interval = own.meets ? 0 : own.in_interval + 1;
      ++found_.accepted[b];
      if (ends[r] || event[r] >= 0) {
        stays[r] = 0;
      } else if (course_.keep_states) {
        found_.states.see(int64_t(b), found_.accepted[b], work_.y, int64_t(r));
      }
    }
  }

  /// Rows that are done leave the batch; what they did not reach holds their last state.
  void drop(const std::vector<char>& stays) {
    std::vector<int64_t> kept;
    for (size_t r = 0; r < stays.size(); ++r) {
      if (stays[r]) {
        kept.push_back(int64_t(r));
        continue;
      }
      const int64_t b = sample(r), count = times().count;
      found_.last[b].copy_(work_.y[int64_t(r)]);
      const bool has_event = course_.events && course_.events->found()[size_t(b)];
      const Tensor state =
          has_event ? found_.values[count][b] : found_.last[b].narrow(0, 0, course_.outputs);
      for (int64_t slot = way(r).slot; slot < found_.values.size(0); ++slot) {
        if (slot < count || !has_event) found_.values[slot][b].copy_(state);
      }
    }
    if (int64_t(kept.size()) < work_.rows) work_.keep(kept);
  }

  Stepper& stepper_;
  Field f_;
  const Course& course_;
  Work work_;
  Outcome found_;
  std::vector<Way> ways_;
};

}  // namespace

Outcome drive(Stepper& stepper, const Field& f, const Tensor& y0, const Tensor& slope,
              const Course& course) {
  const c10::AutoGradMode no_tape(false);
  return Drive(stepper, f, y0, course).run(y0, slope);
}

}  // namespace deq::ode
