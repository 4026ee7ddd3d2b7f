// Which options change nothing beside the others: given ones are refused, and a run's file leaves
// them out. A new option that matters only with another one has its line here.
#pragma once

#include <map>
#include <string>

#include "deq/train/options.h"

namespace deq {

/// key -> why it changes nothing, and with what it would.
using Idle = std::map<std::string, std::string>;

/// Of how a model is solved.
Idle idle_options(const EquilibriumOptions& equilibrium, const ModelOptions& model);
/// Of a whole configuration.
Idle idle_options(const TrainOptions& options);
/// Of an evaluation; lanes of sequences count only where a leak is measured.
Idle idle_in_evaluation(const Task& task, bool measures_leak);

/// Throws deq::Error for a key in `given` that is among `idle`.
void check_effect(const Idle& idle, const Assignments& given);

}  // namespace deq
