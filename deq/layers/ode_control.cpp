#include "deq/layers/ode_control.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace deq::ode {
namespace {

constexpr double kSafety = 0.9, kLeast = 0.2, kMost = 10, kNotFinite = 0.1;
constexpr double kTinyError = 1e-10;  // what is smaller counts as this

}  // namespace

double Control::factor(double error, int error_order) {
  if (!std::isfinite(error)) {
    rejected_ = true;
    return kNotFinite;
  }
  const double q = error_order, e = std::max(error, kTinyError);
  if (error > 1) {
    rejected_ = true;
    return std::clamp(kSafety * std::pow(e, -1 / q), kLeast, 1.0);
  }
  const double factor = kSafety * std::pow(e, -0.7 / q) * std::pow(before_, 0.4 / q);
  before_ = std::max(e, 1e-4);
  const double most = rejected_ ? 1.0 : kMost;
  rejected_ = false;
  return std::clamp(factor, kLeast, most);
}

double trial_step(double size_y, double size_f, double span) {
  const double h = size_y < 1e-5 || size_f < 1e-5 ? 1e-6 : 0.01 * size_y / size_f;
  return std::min(h, span);
}

double first_step(double trial, double size_f, double change_of_f, int error_order, double span) {
  const double largest = std::max(size_f, change_of_f / trial);
  const double h =
      largest <= 1e-15 ? std::max(1e-6, trial * 1e-3) : std::pow(0.01 / largest, 1.0 / error_order);
  const double first = std::min({100 * trial, h, span});
  return std::isfinite(first) && first > 0 ? first : trial;
}

double least_step(double t, double end) {
  return 4 * std::numeric_limits<double>::epsilon() * std::max(std::abs(t), std::abs(end)) +
         std::numeric_limits<double>::min();
}

}  // namespace deq::ode
