#include "deq/runs/run.h"

#include <ATen/ATen.h>

#include <chrono>
#include <deque>

#include "deq/base/device.h"
#include "deq/base/toml.h"
#include "deq/files/files.h"
#include "deq/files/folder_lock.h"
#include "deq/files/safetensors.h"
#include "deq/files/sha256.h"
#include "deq/runs/metrics.h"
#include "deq/runs/run_files.h"
#include "deq/runs/run_folder.h"

namespace deq {
namespace {

namespace fs = std::filesystem;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// Of several processes of a machine each takes its own GPU.
TrainOptions on_own_device(TrainOptions options, const ProcessGroup& group) {
  std::string& device = options.loop.run.device;
  if (group.several() && device == "cuda") device = fmt::format("cuda:{}", group.local_rank());
  return options;
}

/// What one process of a run does: all train and evaluate, and rank 0 has the folder besides.
class Run {
 public:
  Run(const TrainOptions& options, const fs::path& folder, bool resume, const RunObserver& observer,
      const std::atomic<bool>& interrupt, std::shared_ptr<ProcessGroup> group)
      : options_(options),
        folder_(folder),
        observer_(observer),
        interrupt_(interrupt),
        group_(std::move(group)),
        trainer_(checked(options, resume), load_corpus_for(resume), group_),
        lock_(take_folder(resume)),
        metrics_(folder / kMetrics),
        data_sum_(data_sum(trainer_.corpus().train)) {
    check_data();
    const bool resumed = restore(resume);
    DEQ_CHECK(trainer_.steps_done() <= options.loop.limits.steps,
              "steps = {}: run '{}' has made {}; expected as many or more",
              options.loop.limits.steps, folder.string(), trainer_.steps_done());
    check_weights();
    on_first([&] { begin_files(resumed); });
    if (group_->first() && observer_.started) observer_.started(trainer_, resumed);
  }

  RunResult train() {
    start_ = Clock::now();
    const LimitOptions& limits = options_.loop.limits;
    RunResult result;
    while (result.why.empty()) {
      agree();
      if (trainer_.steps_done() >= limits.steps) {
        result.why = "steps done";
      } else if (limits.minutes > 0 && agreed_.seconds >= 60 * limits.minutes) {
        result.why = "minutes over";
      } else if (limits.patience > 0 && progress_.since_best >= limits.patience) {
        result.why = fmt::format("no better for {} evaluations", progress_.since_best);
      } else if (agreed_.interrupted) {
        result.why = "interrupted";
      } else {
        one_step();
      }
    }
    agree();
    if (!agreed_.interrupted && progress_.evaluated_at != trainer_.steps_done())
      evaluate_and_keep();
    save_last();
    agree();
    if (!agreed_.interrupted) result.test = test_of_best();
    result.steps = trainer_.steps_done();
    result.seconds = seconds();
    result.best_loss = progress_.best_loss;
    return result;
  }

 private:
  /// What one process decides, or any, and all obey.
  struct Agreed {
    bool interrupted = false;  // any
    double seconds = 0;        // of rank 0
  };

  void agree() {
    group_->doing(fmt::format("step {}", trainer_.steps_done() + 1));
    agreed_ = {interrupt_, seconds()};
    if (!group_->several()) return;
    const at::Tensor all =
        group_->gather(at::tensor({double(agreed_.interrupted), agreed_.seconds}, at::kDouble));
    agreed_ = {all.select(1, 0).any().item<bool>(), all[0][1].item<double>()};
  }

  /// What only rank 0 does; where it fails all do.
  void on_first(const std::function<void()>& part) {
    together(*group_, [&] {
      if (group_->first()) part();
    });
  }

  std::optional<FolderLock> take_folder(bool resume) {
    std::optional<FolderLock> lock;
    on_first([&] {
      prepare_folder(folder_, resume);
      lock.emplace(folder_);
    });
    return lock;
  }

  void begin_files(bool resumed) {
    metrics_.rewind(trainer_.steps_done());  // writes nothing where it finds what is no metrics
    // First of what is new: without it the folder would be neither empty nor a run.
    write_file(folder_ / "config.toml", to_toml(options_in_force(options_)));
    if (!resumed) {
      trainer_.corpus().vocabulary.save(folder_ / kVocabulary);
      if (trainer_.corpus().answers) trainer_.corpus().answers->save(folder_ / kAnswers);
    }
  }

  /// What can be said of the folder before it is made.
  TrainOptions checked(const TrainOptions& options, bool resume) {
    on_first([&] {
      if (!resume && !fs::exists(folder_)) return;
      prepare_folder(folder_, resume);
      check_unlocked(folder_);
    });
    return on_own_device(options, *group_);
  }

  /// In the vocabularies of the run that goes on, which rank 0 has.
  Corpus load_corpus_for(bool resume) {
    std::string vocabulary, answers;
    on_first([&] {
      if (!resume || !fs::exists(folder_ / kVocabulary)) return;
      vocabulary = Vocabulary::load(folder_ / kVocabulary).serialize();
      answers = answers_in(folder_, options_.task->own_answers()).serialize();
    });
    vocabulary = broadcast_text(*group_, vocabulary);
    answers = broadcast_text(*group_, answers);
    std::optional<Corpus> corpus;
    together(*group_, [&] {
      corpus = vocabulary.empty()
                   ? load(options_.task, options_.data)
                   : load(options_.task, options_.data, Vocabulary::parse(vocabulary, kVocabulary),
                          Vocabulary::parse(answers, kAnswers));
    });
    return std::move(*corpus);
  }

  /// That all processes read the same data. Rank 0's is compared with the checkpoint's besides.
  void check_data() {
    if (!group_->several()) return;
    const Corpus& corpus = trainer_.corpus();
    check_alike(*group_,
                {{"training data (SHA-256)", data_sum_},
                 {"validation data (SHA-256)", data_sum(corpus.valid)},
                 {"test data (SHA-256)", data_sum(corpus.test)},
                 {"vocabulary (SHA-256)", corpus.vocabulary.fingerprint()},
                 {"vocabulary of answers (SHA-256)", corpus.answer_vocabulary().fingerprint()}});
  }

  void check_weights() {
    if (!group_->several()) return;
    Sha256 sum;
    for (const auto& [name, tensor] : named_tensors(trainer_.model())) {
      const at::Tensor bytes = tensor.detach().cpu().contiguous();
      sum.update(bytes.data_ptr(), bytes.nbytes());
    }
    check_alike(*group_, {{"weights (SHA-256)", sum.hex()}});
  }

  std::map<std::string, std::string> metadata() const {
    Progress now = progress_;
    now.seconds = seconds();
    return checkpoint_metadata(trainer_, options_.loop, data_sum_, now);
  }

  double seconds() const { return progress_.seconds + seconds_since(start_); }

  void one_step() {
    const auto before = Clock::now();
    const StepReport report = trainer_.step();
    recent_.push_back(seconds_since(before));
    if (recent_.size() > 20) recent_.pop_front();
    double sum = 0;
    for (const double s : recent_) sum += s;
    const double per_step = sum / double(recent_.size());
    const double tokens_per_second = double(trainer_.tokens_per_step()) / per_step;
    const LimitOptions& limits = options_.loop.limits;
    double left = per_step * double(limits.steps - report.step);
    if (limits.minutes > 0) left = std::min(left, 60 * limits.minutes - seconds());
    if (group_->first() && observer_.stepped)
      observer_.stepped(report, tokens_per_second, std::max(0.0, left));
    if (report.step % limits.log_every == 0 || report.step == 1 || !report.finite) {
      on_first([&] { metrics_.step(report, tokens_per_second, seconds()); });
    }
    const bool evaluate_now = report.step % limits.eval_every == 0;
    if (evaluate_now) evaluate_and_keep();
    if (evaluate_now || report.step % limits.save_every == 0) save_last();
  }

  /// Who watches hears it of rank 0 alone.
  std::function<void(double)> evaluating() const {
    return group_->first() ? observer_.evaluating : std::function<void(double)>();
  }

  void evaluate_and_keep() {
    group_->doing(fmt::format("the validation of step {}", trainer_.steps_done()));
    const Evaluation evaluation = trainer_.evaluate_valid(evaluating());
    progress_.evaluated_at = trainer_.steps_done();
    trainer_.schedule().evaluated(evaluation.loss);
    const bool best = evaluation.loss < progress_.best_loss;
    progress_.since_best = best ? 0 : progress_.since_best + 1;
    if (best) progress_.best_loss = evaluation.loss;
    on_first([&] {
      metrics_.evaluation(trainer_.steps_done(), "valid", evaluation, options_.task, seconds());
      if (best) save_tensors(folder_ / kBest, trainer_.weights(), metadata());
      if (observer_.evaluated) observer_.evaluated(trainer_.steps_done(), evaluation, best);
    });
  }

  Evaluation test_of_best() {
    group_->doing("the test");
    NamedTensors best;
    on_first([&] {
      if (!fs::exists(folder_ / kBest)) return;
      TensorFile file = load_tensors(folder_ / kBest);
      require_all_read(file, kBest);
      best = std::move(file.tensors);
    });
    best = broadcast_tensors(*group_, best);
    if (!best.empty()) load_weights(trainer_.model(), best, kBest);
    const Evaluation evaluation = trainer_.evaluate_test(evaluating());
    on_first([&] {
      metrics_.evaluation(trainer_.steps_done(), "test", evaluation, options_.task, seconds());
    });
    return evaluation;
  }

  void save_last() {
    group_->doing(fmt::format("the checkpoint of step {}", trainer_.steps_done()));
    const NamedTensors state = trainer_.state();
    on_first([&] { save_tensors(folder_ / kLast, state, metadata()); });
  }

  /// From the last checkpoint, where there is one: rank 0's, to all.
  bool restore(bool resume) {
    TensorFile file;
    on_first([&] {
      if (!resume || !fs::exists(folder_ / kLast)) return;
      file = read_checkpoint(folder_, trainer_, options_.loop, data_sum_, progress_);
      check_shapes(folder_, options_, trainer_, file);
    });
    file.tensors = broadcast_tensors(*group_, file.tensors);
    if (file.tensors.empty()) return false;
    together(*group_, [&] { trainer_.restore(file.tensors); });
    at::Tensor numbers = at::tensor({progress_.seconds, progress_.best_loss,
                                     double(progress_.since_best), double(progress_.evaluated_at)},
                                    at::kDouble);
    group_->broadcast(numbers);
    const double* held = numbers.data_ptr<double>();
    progress_ = {held[0], held[1], int64_t(held[2]), int64_t(held[3])};
    return true;
  }

  TrainOptions options_;
  fs::path folder_;
  const RunObserver& observer_;
  const std::atomic<bool>& interrupt_;
  std::shared_ptr<ProcessGroup> group_;
  Trainer trainer_;  // before there is a folder: what is wrong with data or options leaves none
  std::optional<FolderLock> lock_;  // of rank 0
  Metrics metrics_;
  std::string data_sum_;  // SHA-256 of the training split
  Progress progress_;
  Agreed agreed_;
  Clock::time_point start_ = Clock::now();
  std::deque<double> recent_;  // seconds of the last steps
};

}  // namespace

RunResult run_training(const TrainOptions& options, const fs::path& folder, bool resume,
                       const RunObserver& observer, const std::atomic<bool>& interrupt,
                       std::shared_ptr<ProcessGroup> group) {
  together(*group, [&] {
    validate(options, "TrainOptions");
    device_of(on_own_device(options, *group).loop.run.device);
  });
  return Run(options, folder, resume, observer, interrupt, std::move(group)).train();
}

}  // namespace deq
