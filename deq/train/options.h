// Everything that `deq train` can be told, declared once: flags, config.toml and checkpoints
// follow.
#pragma once

#include "deq/models/model.h"
#include "deq/tasks/tasks.h"
#include "deq/train/optimizer.h"
#include "deq/train/schedule.h"

namespace deq {

/// How the training text is cut up. Sequences are never cut: a segment is `batch` whole ones.
struct BatchOptions {
  int64_t batch = 16;
  int64_t length = 64;
  int64_t history = 64;
  double restart = 0;
  int64_t subsequence = 0;
  int64_t accumulate = 1;
  int64_t shards = 1;

  static void fields(auto& self, auto&& field) {
    field("batch", self.batch, "lanes of text, or sequences, trained on side by side",
          between(1, 65536));
    field("length", self.length, "positions of a segment of text", between(1, 1 << 20));
    field("history", self.history, "positions of earlier segments that are seen",
          between(0, 1 << 30));
    field("restart", self.restart,
          "share of lanes that begin a text anew at each segment, without history", between(0, 1));
    field("subsequence", self.subsequence,
          "positions solved at a time, gradients cross them; 0: all", between(0, 1 << 20));
    field("accumulate", self.accumulate, "segments whose gradients make one step",
          between(1, 1 << 20));
    field("shards", self.shards,
          "parts of a batch whose gradients are computed alone and added in order: what processes "
          "share out",
          between(1, 65536));
  }
};

/// How long, and what is looked at on the way.
struct LimitOptions {
  int64_t steps = 1000;
  double minutes = 0;
  int64_t eval_every = 500;
  int64_t patience = 0;
  int64_t save_every = 200;
  int64_t log_every = 10;

  static void fields(auto& self, auto&& field) {
    field("steps", self.steps, "steps of the optimiser", at_least(1));
    field("minutes", self.minutes, "stop after this long, whatever the step; 0: never",
          at_least(0));
    field("eval_every", self.eval_every, "steps between evaluations; the best is kept",
          at_least(1));
    field("patience", self.patience, "stop after this many evaluations without a best; 0: never",
          at_least(0));
    field("save_every", self.save_every, "steps between checkpoints", at_least(1));
    field("log_every", self.log_every, "steps between lines of metrics.jsonl", at_least(1));
  }
};

/// Evaluation of a text: every token but the first is a target exactly once. Of sequences only
/// `batch` matters, and not to the result.
struct EvaluationOptions {
  int64_t lanes = 16;
  int64_t batch = 16;
  int64_t length = 64;
  int64_t history = 64;
  int64_t subsequence = 0;

  static void fields(auto& self, auto&& field) {
    field("lanes", self.lanes, "parts the text is cut into, each starting without history",
          between(1, 1 << 20));
    field("batch", self.batch, "lanes, or sequences, read side by side; does not change the result",
          between(1, 65536));
    field("length", self.length, "positions solved at once", between(1, 1 << 20));
    field("history", self.history, "positions of earlier segments that are seen",
          between(0, 1 << 30));
    field("subsequence", self.subsequence, "positions of these solved at a time; 0: all",
          between(0, 1 << 20));
  }
};

/// What makes an equilibrium model train and stay stable.
struct StabilityOptions {
  int64_t pretrain_steps = 0;
  int64_t pretrain_depth = 2;
  int64_t fewer_steps = 0;
  double jacobian_weight = 0;
  double jacobian_frequency = 0.4;
  int64_t jacobian_growth_every = 0;
  double clip = 0.25;

  static void fields(auto& self, auto&& field) {
    field("pretrain_steps", self.pretrain_steps, "first train a shallow unrolled network this long",
          at_least(0));
    field("pretrain_depth", self.pretrain_depth, "its depth", at_least(1));
    field("fewer_steps", self.fewer_steps, "lower max-steps by a random 0 to this many, each step",
          between(0, 1 << 20));
    field("jacobian_weight", self.jacobian_weight, "weight of |J|_F^2 / n in the loss",
          at_least(0));
    field("jacobian_frequency", self.jacobian_frequency, "share of steps that have it",
          between(0, 1));
    field("jacobian_growth_every", self.jacobian_growth_every,
          "raise the weight by 0.1 every so many steps after pre-training; 0: never", at_least(0));
    field("clip", self.clip, "largest norm of the gradient; 0: none", at_least(0));
  }
};

/// Where a step's solves begin and how they go on: what makes more steps at test time help.
struct PathOptions {
  StartOptions start;
  double noise = 0;
  bool progressive = false;
  int64_t segments = 1;
  int64_t carry = 0;
  int64_t carry_right = 0;
  double carry_over = 0;
  int64_t carry_grace = 0;
  double rest_weight = 0;
  int64_t rest_after = 0;
  double ema = 0;

  static void fields(auto& self, auto&& field) {
    field("", self.start);
    field("noise", self.noise, "of N(0, 1) on the state at each evaluation, in training",
          between(0, 1e6));
    field("progressive", self.progressive,
          "of max-steps, a random number without a tape, then a random number with one");
    field("segments", self.segments,
          "solves of a batch, one behind the other, each with a loss and a step of the optimiser",
          between(1, 1 << 16));
    field("carry", self.carry,
          "keep each problem and its state for 2 to so many steps, drawn; 0: for one",
          between(0, 1 << 20));
    field("carry_right", self.carry_right,
          "a problem that is right goes after so many steps on average; 0: it stays",
          between(0, 1 << 20));
    field("carry_over", self.carry_over,
          "share of problems that start from the state that the problem before them left",
          between(0, 1));
    field("carry_grace", self.carry_grace,
          "first steps of each problem that have no loss: its answer cannot be there yet",
          between(0, 1 << 20));
    field("rest_weight", self.rest_weight,
          "weight of |f(z) - z|^2 / |f(z)|^2 in the loss, of problems whose answers are right",
          at_least(0));
    field("rest_after", self.rest_after, "steps of training before it is weighed", at_least(0));
    field("ema", self.ema, "evaluate and keep a moving average of the weights, of this rate",
          half_open(0, 1));
  }
};

/// Method of descent and its rate.
struct OptimizationOptions {
  Optimizer optimizer = Adam{};
  ScheduleOptions schedule;

  static void fields(auto& self, auto&& field) {
    field("optimizer", self.optimizer, "method of descent");
    field("", self.schedule);
  }
};

/// On what, and from which seed.
struct RunOptions {
  int64_t seed = 1;
  int64_t threads = 0;
  std::string device = "cpu";

  static void fields(auto& self, auto&& field) {
    field("seed", self.seed, "of weights, masks and probes", at_least(0));
    field("threads", self.threads, "threads; 0: all cores", between(0, 4096));
    field("device", self.device, "cpu, cuda or cuda:N");
  }
};

/// Anderson's method in scope `causal`, 30 evaluations; adjoint by Anderson's, memory 12.
EquilibriumOptions training_equilibrium();

/// Everything that `deq train` can be told.
struct TrainOptions {
  std::string data;
  Task task;
  ModelOptions model;
  EquilibriumOptions equilibrium = training_equilibrium();
  struct Loop {
    BatchOptions batch;
    LimitOptions limits;
    StabilityOptions stability;
    PathOptions path;
    OptimizationOptions optimization;
    RunOptions run;

    static void fields(auto& self, auto&& field) {
      field.group("training");
      field("", self.batch);
      field("", self.limits);
      field("", self.stability);
      field("", self.path);
      field("", self.optimization);
      field.group("run");
      field("", self.run);
    }
  } loop;
  EvaluationOptions eval;

  static void fields(auto& self, auto&& field) {
    field.group("data");
    field("data", self.data, "text file, or folder with its splits; none for copy-memory");
    field("task", self.task, "what a token is");
    field("", self.model);
    field("", self.equilibrium);
    field("", self.loop);
    field.group("evaluation");
    field("eval", self.eval);
  }
};

/// Completes options from what was given: a solver whose scope was not chosen gets one that leaks
/// nothing where the cell is causal (`causal`, or `position`), and `sample` where it is not. Throws
/// deq::Error for a key in `given` that changes nothing beside the others: all of these for an
/// explicit network (depth >= 1), or a decay where no scope is causal.
void settle(EquilibriumOptions& equilibrium, const ModelOptions& model, const Assignments& given);
/// The same of a whole configuration: the depth of a pre-training of no steps, say.
void settle(TrainOptions& options, const Assignments& given);

/// Throws deq::Error for a key in `given`, options of an evaluation, that changes nothing for
/// `task`; lanes of sequences count only where a leak is measured.
void check_evaluation(const Task& task, const Assignments& given, bool measures_leak);

/// The options in force, without those that change nothing beside the others.
std::vector<OptionInfo> options_in_force(const TrainOptions& options);

}  // namespace deq
