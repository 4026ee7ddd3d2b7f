#include "deq/train/schedule.h"

#include <algorithm>
#include <cmath>

namespace deq {

double Schedule::rate(int64_t step) const {
  const double peak = options_.rate;
  const double warmup = double(options_.warmup);
  if (double(step) < warmup) return peak * double(step) / warmup;
  if (const auto* cosine = std::get_if<CosineDecay>(&options_.decay)) {
    const double rest = std::max(1.0, double(steps_) - warmup);
    const double share = std::clamp((double(step) - warmup) / rest, 0.0, 1.0);
    return peak * (cosine->floor + (1 - cosine->floor) * 0.5 * (1 + std::cos(M_PI * share)));
  }
  if (std::holds_alternative<InverseSquareRootDecay>(options_.decay)) {
    return peak * std::sqrt(std::max(1.0, warmup) / double(std::max<int64_t>(1, step)));
  }
  return peak * scale_;
}

void Schedule::evaluated(double loss) {
  const auto* plateau = std::get_if<PlateauDecay>(&options_.decay);
  if (loss < best_) {
    best_ = loss;
    bad_ = 0;
  } else if (plateau && ++bad_ > plateau->patience) {
    scale_ *= plateau->factor;
    bad_ = 0;
  }
}

std::map<std::string, double> Schedule::state() const {
  return {{"best", best_}, {"scale", scale_}, {"bad", double(bad_)}};
}

void Schedule::restore(const std::map<std::string, double>& state) {
  const auto value = [&](const char* name) {
    const auto found = state.find(name);
    DEQ_CHECK(found != state.end(), "checkpoint: 'schedule.{}' is missing", name);
    return found->second;
  };
  best_ = value("best");
  scale_ = value("scale");
  bad_ = int64_t(value("bad"));
}

}  // namespace deq
