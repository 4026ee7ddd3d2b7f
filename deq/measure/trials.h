// Problems solved once and judged at several step limits: what everything else is counted from.
#pragma once

#include <functional>
#include <limits>
#include <vector>

#include "deq/data/corpus.h"
#include "deq/models/model.h"

namespace deq {

inline constexpr double kNoEnergy = std::numeric_limits<double>::quiet_NaN();

/// What a solve of one problem gives when its steps run out, or it is done before.
struct Trial {
  bool right = false;       ///< every place of the answer, of the state that is returned
  bool converged = false;   ///< every row of it, by the stop rule
  double residual = 0;      ///< of all of it, relative; infinite where it is not finite
  double worst = 0;         ///< of its worst position, relative to that position's own f: one wrong
                            ///< square of many is not diluted by the others
  double places = 0;        ///< share of the scored places that are right
  bool best_right = false;  ///< of the iterate with the smallest residual so far
  int64_t evaluations = 0;  ///< of f on this problem: until it was done, wherever the others were
  uint64_t answer = 0;      ///< a hash of the symbols
  double energy = kNoEnergy;  ///< of the state; NaN where f has none
};

/// All problems of a set at each limit.
struct Trials {
  std::vector<int64_t> limits;         ///< of steps, rising
  std::vector<std::vector<Trial>> at;  ///< [limit][problem]
  std::vector<double> seconds;         ///< [limit], of the solves of all problems together
};

/// How problems are solved.
struct TrialOptions {
  EquilibriumOptions equilibrium;  ///< its max_steps is not read
  std::vector<int64_t> limits;
  int64_t batch = 16;  ///< problems side by side
  /// What is solved in place of f, that may end a problem's solve before it converges; empty: f.
  /// Trials are judged by f.
  std::function<Map(const Map& f)> halting = {};
};

/// The state that problems first .. first + B - 1 start from, shaped like `zeros` (B, ..., D).
using StartOf = std::function<at::Tensor(const at::Tensor& zeros, int64_t first)>;

/// Solves each problem once, up to the largest limit. What comes of a limit is what `evaluate`
/// gives with that max_steps, from zeros where `start` is empty. Problems that are done leave the
/// batch.
/// The model must be in evaluation mode, and an equilibrium; no tape. `progress` hears the share
/// done.
Trials try_problems(Model& model, const Split& split, const TrialOptions& options,
                    const StartOf& start = {}, const std::function<void(double)>& progress = {});

/// The same of plain steps from which problems halt by a rule (train/halted.h): one entry, at
/// `equilibrium`'s max_steps. Evaluations are those before a problem halted.
Trials try_halting(Model& model, const Split& split, const Halting& rule,
                   const EquilibriumOptions& equilibrium, int64_t batch,
                   const std::function<void(double)>& progress = {});

/// The same of an explicit network, which has no limit and no residual (NaN): one entry, at its
/// depth.
Trials try_levels(Model& model, const Split& split, int64_t batch,
                  const std::function<void(double)>& progress = {});

/// Relative residuals of a state: of each sample (B), and of each sample's worst position (B), on
/// the CPU in double; infinite where a number is not finite.
struct StateResiduals {
  at::Tensor samples, worst;
  at::Tensor positions;  ///< (B, ...), without the features
};
StateResiduals residuals_of(const at::Tensor& z, const at::Tensor& fz);

/// Calls `use` for each batch of the split, problems in order. `progress` hears the share done.
void for_each_batch(const Split& split, int64_t batch, const std::function<void(double)>& progress,
                    const std::function<void(const Batch&)>& use);

/// Of each sample whether all of its rows have converged, (samples) bool.
at::Tensor converged_samples(const Report& report, int64_t samples);

/// Zeros of the state's shape for tokens (B, ...).
at::Tensor zero_state(Model& model, const at::Tensor& tokens);

}  // namespace deq
