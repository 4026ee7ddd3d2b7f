// Zeros of g(t, y(t)) along the steps.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "deq/layers/ode_stepper.h"

namespace deq::ode {

/// The first event of each sample.
class Events {
 public:
  Events(const OdeEvent& event, int64_t samples, at::IntArrayRef shape, at::ScalarType type);

  /// Before the first step of the rows, which go on for `spans` at most.
  void start(const Work& work, const std::vector<double>& spans);
  /// theta in (0, 1] of the rows that are accepted and have an event in this step; below 0: none.
  /// `ends`: the steps that are their rows' last.
  std::vector<double> find(const Work& work, const Stepper& stepper,
                           const std::vector<char>& accepted, const std::vector<char>& ends);

  const std::vector<char>& found() const { return found_; }
  /// Samples whose g was not finite before an event was found.
  const std::vector<char>& lost() const { return lost_; }
  /// |g| in the step of the event over the step's size, by which a slope is judged.
  const std::vector<double>& slope_scale() const { return slope_scale_; }
  /// g as a field whose state is y and whose value is (b).
  at::Tensor evaluate(const at::Tensor& t, const at::Tensor& y, const at::Tensor& rows) const;

 private:
  struct Probe {
    int64_t row;
    double theta;
  };
  using Samples = std::vector<std::pair<double, double>>;  // (theta, g), by theta
  struct Bracket;

  std::vector<double> at_probes(const Work& work, const Stepper& stepper,
                                const std::vector<Probe>& probes) const;
  /// Whether a sample starts at an event, as one does whose state is that of an event found before:
  /// g is what remains of y's and t's rounding, now or in the steps that led there. By g's own
  /// slopes: it does not matter what g is multiplied with.
  bool starts_at_zero(size_t sample, double h, const Samples& seen) const;
  bool crosses(double before, double after) const;
  /// g in the step of each of these rows, from its start to its end.
  std::vector<Samples> look(const Work& work, const Stepper& stepper,
                            const std::vector<int64_t>& rows);
  /// And where it comes near to zero in between.
  void look_closer(const Work& work, const Stepper& stepper, std::vector<Samples>& seen,
                   const std::vector<int64_t>& rows) const;
  bool ends_at_zero(const Samples& seen, double largest) const;
  /// To rounding.
  void narrow(const Work& work, const Stepper& stepper, std::vector<Bracket>& brackets);

  OdeEvent event_;
  std::vector<int64_t> shape_;
  at::ScalarType type_;
  double rounding_;
  std::vector<double> left_, largest_;        // by sample
  std::vector<double> size_at_start_, span_;  // |g_y| |y| + |g_t t|
  std::vector<double> slope_scale_;
  std::vector<char> first_, found_, lost_;
};

}  // namespace deq::ode
