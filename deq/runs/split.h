// Which part of which data an evaluation reads.
#pragma once

#include <string>

#include "deq/data/corpus.h"
#include "deq/runs/run.h"

namespace deq {

/// A split of a run's data, or of other data of its task; "all" of a text is the whole of one file,
/// in the run's vocabulary. Throws deq::Error for data and splits that there are none of.
Split split_of(const TrainedModel& run, const std::string& data, const std::string& name);

/// Throws deq::Error for an option of the task among `given` without which the split is the same,
/// as the number of training problems is of a test. `run` is as it was loaded, before `given`.
void check_task_options(const TrainedModel& run, const std::string& data, const std::string& name,
                        const Assignments& given);

}  // namespace deq
