// Zeros of g(t, y(t)) along the steps.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "deq/layers/ode_stepper.h"

namespace deq::ode {

/// The first event of each sample.
class Events {
 public:
  Events(const OdeEvent& event, int64_t samples, at::IntArrayRef shape, at::ScalarType type,
         const ops::Allowance& allowed);

  /// Before the first step of the rows.
  void start(const Work& work);
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
  double relative_, absolute_;
  std::vector<double> left_, largest_, slope_scale_;  // by sample
  std::vector<char> first_, found_, lost_;
};

}  // namespace deq::ode
