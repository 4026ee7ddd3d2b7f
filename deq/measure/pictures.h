#pragma once

#include "deq/measure/trials.h"
#include "deq/report/problem_picture.h"
#include "deq/runs/run.h"

namespace deq {

/// Pictures of these problems of a split at the marks of their solves from zeros: 1, 2, 3, 4, 6, 8,
/// 12, ... steps, up to the largest limit. `trials` are those at that limit. None of problems with
/// more than 4096 positions.
std::vector<ProblemPicture> draw_problems(const TrainedModel& run, const Split& split,
                                          const TrialOptions& how, const std::vector<Trial>& trials,
                                          const std::vector<int64_t>& problems);

}  // namespace deq
