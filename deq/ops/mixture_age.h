// How many past iterates a row of Anderson's solver mixes: the rule that its loops on the CPU and
// on a GPU share.
#pragma once

#ifdef __CUDACC__
#define DEQ_ON_BOTH __host__ __device__
#else
#define DEQ_ON_BOTH
#endif

namespace deq::ops {

/// What is remembered of a row from step to step. It mixes no more iterates than its age, the
/// newest ones, and the age grows by one with each step. A row whose residual has not become a
/// tenth smaller in kPatience steps is one for which mixtures do not work, since f is not linear
/// enough or only shifts numbers: it makes plain steps, as long as these help or the residual stays
/// below three times where they began; twice in a solve at most (docs/log.md).
struct MixtureAge {
  static constexpr int kPatience = 12, kExcursions = 2;

  int age = 0;  ///< 0: begins now
  int since = 0, excursions = 0;
  bool plain = false;
  double best = 0, from = 0;  ///< squared residuals: the smallest so far, where plain steps began

  /// The age at the next step, from a squared residual; at most `held`.
  DEQ_ON_BOTH int next(double size, int held) {
    const bool was_plain = plain;
    if (age == 0 || size < 0.81 * best) {
      best = size;
      since = 0;
    } else {
      ++since;
    }
    if (age == 0) {
      plain = false;
    } else if (!plain && since >= kPatience && excursions < kExcursions) {
      turn(size, true);
    } else if (plain && (size > 9 * from || since >= 2 * kPatience)) {
      turn(size, false);
      ++excursions;
    }
    const int longer = age + 1 < held ? age + 1 : held;
    return age = age == 0 || plain || was_plain ? 1 : longer;
  }

 private:
  DEQ_ON_BOTH void turn(double size, bool to_plain) {
    plain = to_plain;
    from = best = size;
    since = 0;
  }
};

}  // namespace deq::ops
