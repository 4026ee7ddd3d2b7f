#include "deq/train/path_checks.h"

#include "deq/gradients/reversible.h"
#include "deq/gradients/unrolled.h"
#include "deq/solvers/picard.h"
#include "deq/train/halted.h"

namespace deq {

void check_halting(const TrainOptions& options, const Model& model) {
  const Halting& rule = options.model.halting;
  if (!rule->halts()) return;
  const BatchOptions& batch = options.loop.batch;
  const PathOptions& path = options.loop.path;
  DEQ_CHECK(!continues_text(options.task),
            "halting = {} with task {}: a text's positions go on from each other; expected a task "
            "of problems",
            rule.name(), options.task.name());
  DEQ_CHECK(batch.subsequence == 0 && options.eval.subsequence == 0,
            "halting = {} with subsequence = {}; expected 0", rule.name(),
            std::max(batch.subsequence, options.eval.subsequence));
  check_plain_steps(model, rule, options.equilibrium.solver);
  DEQ_CHECK(!rule->learned() || !options.model.depth.checkpointed,
            "halting = {} with checkpointed = true: the states between its levels have no tape; "
            "expected false",
            rule.name());
  if (!rule->every_step()) return;
  DEQ_CHECK(path.carry == 0 && path.segments == 1 && !path.progressive,
            "halting = {} with carry, segments or progressive: it counts steps from a problem's "
            "start; expected 0, 1 and false",
            rule.name());
  if (model.is_explicit()) return;
  const auto* unrolled = options.equilibrium.gradient.get_if<Unrolled>();
  DEQ_CHECK(unrolled,
            "halting = {} with gradient {}: it is trained on every step; expected unrolled",
            rule.name(), options.equilibrium.gradient.name());
  const double damping = options.equilibrium.solver.get_if<Picard>()->damping;
  DEQ_CHECK(unrolled->damping == damping,
            "halting = {} with solver-damping = {}, gradient-damping = {}; expected one number",
            rule.name(), damping, unrolled->damping);
}

void check_remembering(const TrainOptions& options, const Corpus& corpus) {
  const PathOptions& path = options.loop.path;
  const Gradient& gradient = options.equilibrium.gradient;
  DEQ_CHECK(corpus.train.sequences(),
            "start = remembered with task {}: a text's segments are no problems; expected a task "
            "of problems",
            options.task.name());
  DEQ_CHECK(!corpus.draw,
            "start = remembered: task {} draws its problems anew in each epoch, and none comes "
            "again; expected task-pool >= 1",
            options.task.name());
  DEQ_CHECK(!options.model.is_explicit(),
            "start = remembered with depth = {}: levels begin where they are told to; expected "
            "depth = 0",
            options.model.depth.depth);
  DEQ_CHECK(!gradient.is<Unrolled>() && !gradient.is<Checkpointed>() &&
                !gradient.is<ReversibleUnrolled>(),
            "start = remembered with gradient {}: its steps would be other ones in each epoch; "
            "expected implicit, phantom or one-step",
            gradient.name());
  DEQ_CHECK(path.carry == 0 && options.loop.batch.accumulate == 1,
            "start = remembered with carry = {}, accumulate = {}; expected 0 and 1", path.carry,
            options.loop.batch.accumulate);
}

}  // namespace deq
