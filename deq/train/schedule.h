// The learning rate as a function of the step: linear warm-up to the peak, then a decay.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "deq/base/fields.h"

namespace deq {

/// The peak, to the end.
struct ConstantDecay {
  static constexpr const char* name = "constant";
  static void fields(auto&, auto&&) {}
};

/// peak (1 + cos(pi p)) / 2 with p the share of the steps after warm-up: no jump where warm-up
/// ends.
struct CosineDecay {
  static constexpr const char* name = "cosine";
  double floor = 0.0;

  static void fields(auto& self, auto&& field) {
    field("floor", self.floor, "lowest rate, as a share of the peak", between(0, 1));
  }
};

/// peak sqrt(warmup / step) (Vaswani et al. 2017); with no warm-up, peak / sqrt(step).
struct InverseSquareRootDecay {
  static constexpr const char* name = "inverse-sqrt";
  static void fields(auto&, auto&&) {}
};

/// The rate is multiplied by `factor` after more than `patience` evaluations in a row without a
/// best loss.
struct PlateauDecay {
  static constexpr const char* name = "plateau";
  double factor = 0.5;
  int64_t patience = 1;

  static void fields(auto& self, auto&& field) {
    field("factor", self.factor, "the rate is multiplied by it", left_open(0, 1));
    field("patience", self.patience, "evaluations without a best that are borne", at_least(0));
  }
};

using Decay = std::variant<CosineDecay, ConstantDecay, InverseSquareRootDecay, PlateauDecay>;

/// Warm-up, peak and decay of the learning rate.
struct ScheduleOptions {
  double rate = 1e-3;
  int64_t warmup = 0;
  Decay decay = CosineDecay{};

  static void fields(auto& self, auto&& field) {
    field("rate", self.rate, "peak learning rate", above(0));
    field("warmup", self.warmup, "steps over which the rate rises linearly to the peak",
          at_least(0));
    field("decay", self.decay, "what it does after that");
  }
};

/// The rate of each step; remembers evaluations for `plateau`.
class Schedule {
 public:
  Schedule(const ScheduleOptions& options, int64_t steps) : options_(options), steps_(steps) {}

  double rate(int64_t step) const;  ///< of step 1, 2, ...
  void evaluated(double loss);

  std::map<std::string, double> state() const;
  void restore(const std::map<std::string, double>& state);

 private:
  ScheduleOptions options_;
  int64_t steps_;
  double best_ = std::numeric_limits<double>::infinity();
  double scale_ = 1;
  int64_t bad_ = 0;
};

}  // namespace deq
