#include "deq/train/halted.h"

#include <ATen/ATen.h>

#include "deq/gradients/unrolled.h"
#include "deq/models/leaving.h"
#include "deq/solvers/picard.h"

namespace deq {

using at::Tensor;

namespace {

/// What plain steps of a model start from.
Tensor start_of(Model& model, const Tensor& tokens) {
  const Tensor x = model.read(tokens);
  return model.cell().injects() ? make_start({}, x, model.cell().state_width()) : x;
}

/// z -> f(z + e_n) of the levels n of an explicit network with step embeddings e; f otherwise.
class Steps {
 public:
  Steps(const Model& model, const ForwardOptions& how) {
    const Solver& solver = how.equilibrium.solver;
    if (model.is_explicit()) {
      most_ = model.options().depth.depth;
      if (model.options().depth.step_embedding)
        embedding_ = model.named_parameters()["step_embedding"];
    } else {
      most_ = how.equilibrium.stop.max_steps - 1;  // the last evaluation judges
      judged_ = 1;
      damping_ = solver.get_if<Picard>()->damping;
    }
  }

  int64_t most() const { return most_; }
  /// Evaluations that a problem which never halts has had beside its steps.
  int64_t judged() const { return judged_; }
  double damping() const { return damping_; }
  /// What f sees of z in its rows' step number `step` (B), from 0.
  Tensor seen(const Tensor& z, const Tensor& step) const {
    if (!embedding_.defined()) return z;
    const Tensor own = embedding_.index_select(0, step.clamp_max(most_ - 1));  // (B, D)
    std::vector<int64_t> shape(size_t(z.dim()), 1);
    shape.front() = z.size(0);
    shape.back() = z.size(-1);
    return z + own.view(shape);
  }

 private:
  int64_t most_ = 0, judged_ = 0;
  double damping_ = 1;
  Tensor embedding_;  // (L, D)
};

/// The positions of each sample that need no evaluation.
std::vector<int64_t> done_of(const Tensor& halted, int64_t positions) {
  const Tensor own = halted.to(at::kCPU, at::kLong).contiguous();
  std::vector<int64_t> done(own.data_ptr<int64_t>(), own.data_ptr<int64_t>() + own.numel());
  for (int64_t& count : done) count *= positions;
  return done;
}

}  // namespace

void check_plain_steps(const Model& model, const Halting& rule, const Solver& solver) {
  DEQ_CHECK(model.is_explicit() || solver.is<Picard>(),
            "halting = {} with solver {}: problems halt on the way of plain steps; expected solver "
            "picard, or halting = none",
            rule.name(), solver.name());
}

Halted run_halting(Model& model, const Tensor& tokens, const Halting& rule,
                   const ForwardOptions& how, int64_t first) {
  DEQ_CHECK(rule->halts(), "halting = none: no problem halts; expected a rule that does");
  DEQ_CHECK(how.subsequence == 0, "halting = {} with subsequence = {}; expected 0", rule.name(),
            how.subsequence);
  check_plain_steps(model, rule, how.equilibrium.solver);
  const Steps steps(model, how);
  const Map f = leaving(model, tokens);
  const Map::Series series = f.series();
  const auto judge = rule->judge(model.readout(), first);
  Tensor z = start_of(model, tokens), left = z;
  const int64_t B = z.size(0);
  Tensor halted = at::zeros({B}, z.options().dtype(at::kBool));
  Tensor taken = at::zeros({B}, z.options().dtype(at::kLong));
  int64_t step = 0;
  for (; step < steps.most() && !halted.all().item<bool>(); ++step) {
    const Tensor fz = series(steps.seen(z, at::full_like(taken, step)), done_of(halted, z.size(1)));
    const PlainStep moved{z, fz, damped(z, fz, steps.damping())};
    const Tensor open = halted.logical_not();
    const Tensor now = judge->halts(moved).logical_and(open);
    const bool last = step + 1 == steps.most();
    const Tensor ends = last ? open : now;
    left = at::where(beside_states(ends, z), judge->left(moved, now), left);
    taken = taken + open.to(at::kLong);
    halted = halted.logical_or(now);
    z = at::where(beside_states(open, z), moved.next, z);
  }
  Halted found{left, halted, {}};
  const Tensor level = judge->leaves_before() ? taken - halted.to(at::kLong) : taken;
  const Tensor seen = steps.seen(left, level);
  const Tensor after = f(seen);
  found.report = report_of_chain(left, after, step, 1.0, how.equilibrium.stop);
  found.report.steps = (taken + steps.judged() * halted.logical_not().to(at::kLong)).to(at::kCPU);
  found.report.evaluations = step + 1;
  return found;
}

}  // namespace deq
