#include "deq/train/training_checks.h"

#include <ATen/ATen.h>

#include <set>

#include "deq/base/printable.h"
#include "deq/gradients/reversible.h"
#include "deq/gradients/unrolled.h"
#include "deq/halting/change.h"
#include "deq/halting/right_head.h"
#include "deq/layers/condition.h"
#include "deq/layers/subsequences.h"
#include "deq/solvers/picard.h"
#include "deq/train/halted.h"

namespace deq {

namespace {

/// What problems fill, each number once.
std::set<int64_t> places_of(const Split& split) {
  if (!split.extents.defined()) return {split.tokens[0].numel()};
  const at::Tensor places = split.extents.prod(1).contiguous();
  return {places.data_ptr<int64_t>(), places.data_ptr<int64_t>() + places.numel()};
}

/// What of a problem or a text each position sees.
void check_sight(const TrainOptions& options, const Model& model, const Corpus& corpus) {
  const bool causal = model.cell().causal();
  if (!model.is_explicit()) check_scope(options.equilibrium, causal);
  for (const int64_t length : {options.loop.batch.subsequence, options.eval.subsequence}) {
    DEQ_CHECK(length == 0 || causal,
              "subsequence = {}: positions of this cell depend on later ones; expected 0", length);
    if (!model.is_explicit()) check_parts(options.equilibrium.solver, length);
  }
  DEQ_CHECK(causal || corpus.train.sequences(),
            "task = {}: positions of this cell depend on later ones, and would see the token that "
            "they are to tell; expected a causal cell, or task masked",
            options.task.name());
}

void check_batches(const TrainOptions& options, const Model& model) {
  const BatchOptions& batch = options.loop.batch;
  DEQ_CHECK(batch.restart == 0 || batch.history > 0,
            "restart = {} with history = 0: every segment begins anew; expected 0, or a history",
            batch.restart);
  DEQ_CHECK(batch.batch % batch.shards == 0,
            "batch = {} with shards = {}; expected a multiple: shards of as many rows each",
            batch.batch, batch.shards);
  DEQ_CHECK(batch.shards == 1 || model.is_explicit() ||
                scope_of(options.equilibrium.solver) != Scope::Whole,
            "solver-scope = whole with shards = {}: a batch is solved as one; expected sample, "
            "position or causal",
            batch.shards);
}

void check_path(const TrainOptions& options) {
  const BatchOptions& batch = options.loop.batch;
  const PathOptions& path = options.loop.path;
  const Gradient& gradient = options.equilibrium.gradient;
  DEQ_CHECK(
      path.noise == 0 || batch.subsequence == 0,
      "noise = {} with subsequence = {}: parts are solved without noise; expected one of them "
      "to be 0",
      path.noise, batch.subsequence);
  DEQ_CHECK(!path.progressive || gradient.is<Unrolled>() || gradient.is<Checkpointed>(),
            "progressive = true with gradient {}: it takes a random number of steps with a tape; "
            "expected unrolled or checkpointed",
            gradient.name());
  DEQ_CHECK(path.segments == 1 || batch.accumulate == 1,
            "segments = {} with accumulate = {}: each is a step of the optimiser; expected one of "
            "them to be 1",
            path.segments, batch.accumulate);
  DEQ_CHECK(path.carry == 0 || batch.accumulate == 1,
            "carry = {} with accumulate = {}: states are those of one batch; expected 1",
            path.carry, batch.accumulate);
  DEQ_CHECK(path.carry != 1,
            "carry = 1: a problem of one step carries nothing; expected 0 or >= 2");
  DEQ_CHECK(path.carry_grace == 0 || path.carry_grace < path.carry,
            "carry-grace = {} with carry = {}: a problem may have gone before it has a loss; "
            "expected less",
            path.carry_grace, path.carry);
  DEQ_CHECK(path.carry == 0 || path.start.kind != StartKind::Input,
            "carry = {} with start = input; expected zero, normal or mixed", path.carry);
}

/// That what is trained is what halts at test time.
void check_halting(const TrainOptions& options, const Model& model) {
  const Halting& rule = options.model.halting;
  if (!rule->halts()) return;
  DEQ_CHECK(!model.answers_values() || !(rule.is<HaltByChange>() || rule.is<RightHead>()),
            "halting = {} with task {}: real values have no probabilities, and none is right; "
            "expected residual, act or ponder",
            rule.name(), options.task.name());
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

/// Of start = remembered: that problems come again, and that where a solve begins is not itself
/// what is trained.
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

}  // namespace

void check_symbols(const Model& model, const Corpus& corpus) {
  const auto* own = dynamic_cast<const ConditionCell*>(&model.cell());
  const Vocabulary &inputs = corpus.vocabulary, &answers = corpus.answer_vocabulary();
  const int64_t blanks = inputs.size() - answers.size();  // 1; 0 of bits, all of them given
  if (own || model.cell().symbols() > 0) {
    for (int64_t s = 0; s < answers.size(); ++s) {
      DEQ_CHECK(inputs.token(s + blanks) == answers.token(s),
                "cell = {}: '{}' would be read as '{}', which is answered; expected a blank before "
                "the symbols that are answered, in their order",
                model.options().cell.name(), printable(inputs.token(s + blanks)),
                printable(answers.token(s)));
    }
  }
  if (!own) return;
  for (const Split* split : {&corpus.train, &corpus.valid, &corpus.test}) {
    for (const int64_t places : places_of(*split)) own->check_places(places);
  }
}

void check_training(const TrainOptions& options, const Model& model, const Corpus& corpus) {
  check_symbols(model, corpus);
  check_sight(options, model, corpus);
  check_batches(options, model);
  check_path(options);
  check_halting(options, model);
  if (options.loop.path.start.kind == StartKind::Remembered) check_remembering(options, corpus);
}

}  // namespace deq
