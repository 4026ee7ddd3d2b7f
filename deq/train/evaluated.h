// What one segment of an evaluation gives, of a part of its rows and of all of them.
#pragma once

#include "deq/data/scoring.h"
#include "deq/train/score.h"
#include "deq/train/shards.h"

namespace deq {

/// Of a segment, or of a shard of its rows.
struct Evaluated {
  at::Tensor nats;      ///< (B, T) on the CPU; undefined where there are no rows
  int64_t count = 0;    ///< targets that are scored
  Report report;        ///< reasons, residuals and evaluations alone
  AnswerScore answers;  ///< where there are answers
  at::Tensor scores;    ///< (B, N) double, where there is a scoring
  int64_t steps = 0;    ///< of all problems together, where these halt by a rule
  int64_t halted = 0;   ///< problems that did
};

/// Solves a part and puts its histories for the next one in place of those given. Nothing of no
/// rows. `scoring` may be null.
Evaluated evaluate_part(Model& model, const Batch& part, Histories& histories,
                        const ForwardOptions& how, const Scoring* scoring);

/// Of the whole segment, of what all processes have: `own` are those of this one's shards. Its
/// evaluations are the most of any shard. `scored`: there is a scoring.
Evaluated join(const Shards& shards, const std::vector<Evaluated>& own, const Batch& segment,
               bool scored);

}  // namespace deq
