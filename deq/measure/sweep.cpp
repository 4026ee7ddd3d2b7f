#include "deq/measure/sweep.h"

#include <ATen/ATen.h>

#include <cmath>
#include <limits>
#include <set>
#include <sstream>

#include "deq/gradients/reversible.h"
#include "deq/gradients/unrolled.h"
#include "deq/measure/halting.h"
#include "deq/measure/pictures.h"

namespace deq {
namespace {

constexpr double kUnknown = std::numeric_limits<double>::quiet_NaN();

/// The test sets that are wanted, in the order they are named in.
std::vector<std::string> wanted_sets(const Corpus& corpus, const std::string& given) {
  std::vector<std::string> known{"test"}, wanted;
  for (const NamedSplit& set : corpus.more) known.push_back(set.name);
  if (given.empty()) return known;
  std::istringstream names(given);
  for (std::string name; std::getline(names, name, ',');) {
    DEQ_CHECK(std::count(known.begin(), known.end(), name) == 1, "unknown test set '{}'; known: {}",
              name, fmt::join(known, ", "));
    DEQ_CHECK(std::count(wanted.begin(), wanted.end(), name) == 0,
              "sets: '{}' stands there twice; expected different ones", name);
    wanted.push_back(name);
  }
  return wanted;
}

std::vector<int64_t> limits_of(const SweepOptions& options, int64_t trained) {
  std::set<int64_t> limits(options.limits.begin(), options.limits.end());
  for (int64_t times = 1; options.limits.empty() && times <= 16; times *= 2)
    limits.insert(times * trained);
  DEQ_CHECK(*limits.begin() >= 1 && *limits.rbegin() <= 1 << 24,
            "limits: {}; expected steps from 1 to {}", *limits.begin(), 1 << 24);
  return {limits.begin(), limits.end()};
}

/// Medians of the right ones and of the wrong ones.
void find_medians(const std::vector<double>& values, const std::vector<char>& right,
                  double& of_right, double& of_wrong) {
  std::vector<double> parts[2];
  for (size_t i = 0; i < values.size(); ++i) parts[size_t(right[i])].push_back(values[i]);
  of_wrong = median(parts[0]);
  of_right = median(parts[1]);
}

SweptLimit at_limit(const Trials& trials, size_t limit, const Model& model,
                    const std::vector<double>& operations) {
  const std::vector<Trial>& problems = trials.at[limit];
  const double n = double(problems.size());
  SweptLimit found{.max_steps = trials.limits[limit]};
  std::vector<double> residuals, worst;
  std::vector<char> right;
  for (size_t p = 0; p < problems.size(); ++p) {
    const Trial& trial = problems[p];
    found.places += trial.places;
    found.evaluations += double(trial.evaluations);
    found.operations += double(trial.evaluations) * operations[p];
    found.verdicts.add(trial.converged, trial.right);
    residuals.push_back(trial.residual);
    worst.push_back(trial.worst);
    right.push_back(trial.right);
  }
  for (double* sum : {&found.places, &found.evaluations, &found.operations}) *sum /= n;
  const auto share = [&](auto is) {
    return double(std::count_if(problems.begin(), problems.end(), is)) / n;
  };
  found.accuracy = share([](const Trial& trial) { return trial.right; });
  found.best_accuracy = share([](const Trial& trial) { return trial.best_right; });
  found.seconds = trials.seconds[limit] / n;
  if (model.is_explicit()) {
    found.roc = found.roc_worst = kUnknown;
    found.residual_right = found.residual_wrong = found.worst_right = found.worst_wrong = kUnknown;
    return found;
  }
  found.roc = roc_area(residuals, right);
  found.roc_worst = roc_area(worst, right);
  find_medians(residuals, right, found.residual_right, found.residual_wrong);
  find_medians(worst, right, found.worst_right, found.worst_wrong);
  return found;
}

std::vector<SweptRule> rules_of(const SweepOptions& options, const Model& model) {
  const std::vector<SweptRule> rules = parse_halting(options.halting, model);
  const DepthOptions& depth = model.options().depth;
  return depth.depth > 0 && !depth.tied ? std::vector<SweptRule>() : rules;
}

/// At the largest limit alone. A rule that looks at a state can end any solver's steps; one that is
/// learned, and an explicit network, has plain ones.
HaltedSet halted_by(const SweptRule& rule, Model& model, const Split& split, TrialOptions how,
                    const std::function<void(double)>& progress) {
  how.limits = {how.limits.back()};
  how.equilibrium.stop.max_steps = how.limits.back();
  how.halting = [&rule, &model](const Map& f) { return halting(f, rule.rule, model); };
  const bool plain = model.is_explicit() || rule.rule->learned();
  const Trials all =
      plain ? try_halting(model, split, rule.rule, how.equilibrium, how.batch, progress)
            : try_problems(model, split, how, {}, progress);
  const std::vector<Trial>& trials = all.at.back();
  HaltedSet found{.rule = rule.name};
  for (const Trial& trial : trials) {
    found.accuracy += trial.right;
    found.evaluations += double(trial.evaluations);
    found.verdicts.add(trial.converged, trial.right);
  }
  for (double* sum : {&found.accuracy, &found.evaluations}) *sum /= double(trials.size());
  return found;
}

/// Positions of each problem.
std::vector<int64_t> positions_of(const Split& split) {
  if (!split.extents.defined())
    return std::vector<int64_t>(size_t(split.tokens.size(0)), split.tokens[0].numel());
  const at::Tensor positions = split.extents.prod(1).contiguous();
  const auto* first = positions.data_ptr<int64_t>();
  return {first, first + positions.numel()};
}

/// Which problems are drawn: of each verdict in turn, those that should not be first.
std::vector<int64_t> telling_problems(const std::vector<Trial>& trials, int64_t count) {
  std::vector<int64_t> groups[4], chosen;
  for (size_t p = 0; p < trials.size(); ++p) {
    const bool right = trials[p].right, converged = trials[p].converged;
    groups[right ? converged ? 1 : 3 : converged ? 0 : 2].push_back(int64_t(p));
  }
  const auto all = int64_t(trials.size());
  for (size_t turn = 0; int64_t(chosen.size()) < std::min(count, all); ++turn) {
    for (const auto& group : groups) {
      if (turn < group.size() && int64_t(chosen.size()) < count) chosen.push_back(group[turn]);
    }
  }
  return chosen;
}

/// The input symbol of each answer, by name; -1 where there is none.
std::vector<int64_t> as_inputs(const TrainedModel& run) {
  std::vector<int64_t> found;
  for (int64_t id = 0; id < run.answers.size(); ++id)
    found.push_back(run.vocabulary.find(run.answers.token(id)).value_or(-1));
  return found;
}

/// Counts the solves of a set, for progress.
class Steps {
 public:
  Steps(std::function<void(double, const std::string&)> progress, std::string name, double before,
        double share, int64_t solves)
      : progress_(std::move(progress)),
        name_(std::move(name)),
        before_(before),
        share_(share / double(solves)) {}

  std::function<void(double)> next() {
    return [this, solve = solve_++](double done) {
      if (progress_) progress_(before_ + share_ * (double(solve) + done), name_);
    };
  }

 private:
  std::function<void(double, const std::string&)> progress_;
  std::string name_;
  double before_, share_;
  int64_t solve_ = 0;
};

SweptSet sweep_set(const TrainedModel& run, const Split& all, SweptSet found,
                   const TrialOptions& how, const SweepOptions& options, bool pictures,
                   Steps steps) {
  Model& model = *run.model;
  const Split split = beginning(all, options.problems);
  const std::vector<int64_t> positions = positions_of(split);
  found.problems = split.tokens.size(0);
  found.positions = *std::max_element(positions.begin(), positions.end());
  std::vector<double> operations;
  for (const int64_t count : positions) operations.push_back(model.cell().operations(1, count, 0));
  const bool is_explicit = model.is_explicit();
  found.trials = is_explicit ? try_levels(model, split, how.batch, steps.next())
                             : try_problems(model, split, how, {}, steps.next());
  for (size_t limit = 0; limit < found.trials.limits.size(); ++limit)
    found.limits.push_back(at_limit(found.trials, limit, model, operations));
  for (const SweptRule& rule : rules_of(options, model))
    found.halted.push_back(halted_by(rule, model, split, how, steps.next()));
  if (is_explicit) return found;
  std::vector<Trials> starts;
  for (int64_t start = 1; start <= options.starts; ++start)
    starts.push_back(try_problems(model, split, how,
                                  random_start(options.start_seed, options.start_std, start),
                                  steps.next()));
  found.breadth = count_starts(starts);
  if (options.paths > 0)
    found.paths = measure_paths(model, beginning(split, options.paths), how, as_inputs(run),
                                options.start_seed, options.start_std);
  steps.next()(1);
  if (pictures)
    found.pictures = draw_problems(run, split, how, found.trials.at.back(),
                                   telling_problems(found.trials.at.back(), options.pictures));
  return found;
}

}  // namespace

std::vector<int64_t> SweptSet::converged_wrong() const {
  std::vector<int64_t> found;
  for (size_t p = 0; p < trials.at.back().size(); ++p) {
    if (trials.at.back()[p].converged && !trials.at.back()[p].right) found.push_back(int64_t(p));
  }
  return found;
}

double SweptSet::evaluations_to_converge() const {
  std::vector<double> found;
  for (const Trial& trial : trials.at.back()) {
    if (trial.converged) found.push_back(double(trial.evaluations));
  }
  return median(found);
}

int64_t trained_steps(const TrainOptions& options) {
  const Gradient& gradient = options.equilibrium.gradient;
  if (const auto* unrolled = gradient.get_if<Unrolled>()) return unrolled->steps;
  if (const auto* checkpointed = gradient.get_if<Checkpointed>()) return checkpointed->steps;
  if (const auto* reversible = gradient.get_if<ReversibleUnrolled>()) return reversible->steps;
  return options.equilibrium.stop.max_steps;
}

void check_sweepable(const TrainedModel& run) {
  DEQ_CHECK(!run.model->answers_values(),
            "run '{}': answers of task {} are real values, none of them right or wrong; expected "
            "problems, or `deq eval`",
            run.folder, run.options.task.name());
  DEQ_CHECK(!continues_text(run.options.task),
            "run '{}' is a language model (task {}): its text has no answers that are right or "
            "wrong; expected a task of problems",
            run.folder, task_name(run.options.task));
  DEQ_CHECK(run.model->is_explicit() || run.options.eval.subsequence == 0,
            "run '{}' solves {} positions at a time (eval-subsequence), which has no one limit of "
            "steps; expected 0",
            run.folder, run.options.eval.subsequence);
}

SweptRun sweep_run(const TrainedModel& run, const std::string& name, const Corpus& corpus,
                   const EquilibriumOptions& equilibrium, int64_t batch,
                   const SweepOptions& options, bool pictures,
                   const std::function<void(double, const std::string&)>& progress) {
  validate(options, "Sweep");
  check_sweepable(run);
  const auto rules = int64_t(rules_of(options, *run.model).size());
  run.model->eval();
  SweptRun found{.name = name,
                 .folder = run.folder,
                 .depth = run.options.model.depth.depth,
                 .parameters = run.model->parameter_count(true),
                 .trained = trained_steps(run.options),
                 .solver = equilibrium.solver.name(),
                 .stop = equilibrium.stop};
  const TrialOptions how{equilibrium, limits_of(options, equilibrium.stop.max_steps), batch};
  const std::vector<std::string> names = wanted_sets(corpus, options.sets);
  for (size_t i = 0; i < names.size(); ++i) {
    const double share = 1 / double(names.size());
    Steps steps(progress, name + ", " + names[i], double(i) * share, share,
                2 + options.starts + rules);
    found.sets.push_back(sweep_set(run, corpus.split(names[i]), {.name = names[i]}, how, options,
                                   pictures, std::move(steps)));
  }
  return found;
}

}  // namespace deq
