#include "deq/runs/run_folder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <charconv>

#include "deq/files/sha256.h"
#include "deq/runs/run.h"
#include "deq/runs/run_files.h"

namespace deq {
namespace {

namespace fs = std::filesystem;

std::map<std::string, std::string> cut_of_data(const Trainer& trainer,
                                               const TrainOptions::Loop& loop) {
  const BatchOptions& batch = loop.batch;
  const bool sequences = trainer.corpus().train.sequences();  // not cut, but shuffled
  return {{"batch", std::to_string(batch.batch)},
          sequences ? std::pair{"seed", std::to_string(loop.run.seed)}
                    : std::pair{"length", std::to_string(batch.length)}};
}

/// Whether the checkpoint holds weights of this model's names and shapes.
bool fits(const Model& model, const TensorFile& checkpoint) {
  const NamedTensors weights = named_tensors(model);
  size_t held = 0;
  for (const auto& [name, tensor] : checkpoint.tensors) held += name.rfind("model.", 0) == 0;
  return held == weights.size() &&
         std::all_of(weights.begin(), weights.end(), [&](const auto& own) {
           const auto found = checkpoint.tensors.find("model." + own.first);
           return found != checkpoint.tensors.end() && found->second.sizes() == own.second.sizes();
         });
}

/// Whether this option alone makes another model of the run's.
bool reshapes(TrainOptions run, const OptionInfo& option, const Vocabularies& symbols,
              const TensorFile& checkpoint) {
  try {
    assign_options(run.model, {{option.key, option.value}});
    return !fits(*make_model(run.task, run.model, symbols), checkpoint);
  } catch (const Error&) {
    return true;
  }
}

}  // namespace

void check_shapes(const fs::path& folder, const TrainOptions& options, const Trainer& trainer,
                  const TensorFile& checkpoint) {
  if (fits(trainer.model(), checkpoint)) return;
  const TrainOptions run = read_run_options(folder);
  std::map<std::string, std::string> own;
  for (const OptionInfo& info : selected_options(run.model)) own[info.key] = info.value;
  for (const OptionInfo& info : selected_options(options.model)) {
    const auto found = own.find(info.key);
    const std::string value = found == own.end() ? "" : found->second;
    if (value == info.value || !reshapes(run, info, trainer.model().symbols(), checkpoint))
      continue;
    throw Error(
        fmt::format("{} = {}: the weights of run '{}' have other shapes; expected {}, the "
                    "run's",
                    dashed(info.key), info.value, folder.string(), value.empty() ? "none" : value));
  }
}

void prepare_folder(const fs::path& folder, bool resume) {
  std::error_code error;
  if (resume) {
    DEQ_CHECK(fs::is_directory(folder), "run folder '{}' is missing; expected one to resume",
              folder.string());
    // A run writes metrics before its first weights; without either, others made these.
    const bool weights_alone =
        fs::exists(folder / kBest) && !fs::exists(folder / kLast) && !fs::exists(folder / kMetrics);
    DEQ_CHECK(!weights_alone,
              "run folder '{}' has {} alone, as an import has; expected {}, to resume from",
              folder.string(), kBest, kLast);
    return;
  }
  fs::create_directories(folder, error);
  DEQ_CHECK(fs::is_directory(folder), "run folder '{}': cannot create: {}", folder.string(),
            error.message());
  DEQ_CHECK(!fs::exists(folder / "config.toml"),
            "run folder '{}' holds a run; expected an empty one, or --resume", folder.string());
  for (const char* of_a_run : {kVocabulary, kAnswers, kMetrics, kLast, kBest}) {
    DEQ_CHECK(!fs::exists(folder / of_a_run),
              "run folder '{}' holds {}, what is left of a run; expected an empty one",
              folder.string(), of_a_run);
  }
}

std::string data_sum(const Split& split) {
  Sha256 sum;
  for (const at::Tensor& part : {split.tokens, split.targets, split.extents}) {
    if (!part.defined()) continue;
    const at::Tensor bytes = part.contiguous();
    sum.update(bytes.data_ptr(), bytes.nbytes());
  }
  return sum.hex();
}

std::map<std::string, std::string> checkpoint_metadata(const Trainer& trainer,
                                                       const TrainOptions::Loop& loop,
                                                       const std::string& train_data,
                                                       const Progress& progress) {
  std::map<std::string, std::string> metadata = cut_of_data(trainer, loop);
  metadata["train_data"] = train_data;
  metadata["step"] = std::to_string(trainer.steps_done());
  metadata["seconds"] = fmt::format("{}", progress.seconds);
  metadata["best_loss"] = fmt::format("{}", progress.best_loss);
  metadata["since_best"] = std::to_string(progress.since_best);
  metadata["evaluated_at"] = std::to_string(progress.evaluated_at);
  metadata["vocabulary"] = trainer.corpus().vocabulary.fingerprint();
  if (trainer.corpus().answers) metadata["answers"] = trainer.corpus().answers->fingerprint();
  return metadata;
}

TensorFile read_checkpoint(const fs::path& folder, const Trainer& trainer,
                           const TrainOptions::Loop& loop, const std::string& train_data,
                           Progress& progress) {
  TensorFile file = load_tensors(folder / kLast);
  require_all_read(file, kLast);
  const auto text = [&](const std::string& key) {
    const auto found = file.metadata.find(key);
    DEQ_CHECK(found != file.metadata.end(),
              "last.safetensors: '{}' is missing; expected a checkpoint of deq train", key);
    return found->second;
  };
  const auto number = [&](const std::string& key) {
    double value = 0;
    const std::string written = text(key);
    const char* end = written.data() + written.size();
    const auto parsed = std::from_chars(written.data(), end, value);
    DEQ_CHECK(parsed.ec == std::errc() && parsed.ptr == end,
              "last.safetensors: {} = '{}'; expected a number", key, written);
    return value;
  };
  DEQ_CHECK(
      text("vocabulary") == trainer.corpus().vocabulary.fingerprint(),
      "vocab.txt does not fit last.safetensors: its {} tokens are not those it was trained with",
      trainer.corpus().vocabulary.size());
  DEQ_CHECK(text("train_data") == train_data,
            "the training split, of {} tokens, is not the one that last.safetensors was trained on",
            trainer.corpus().train.tokens.numel());
  // A place in the data means something only where they are cut as they were.
  for (const auto& [key, value] : cut_of_data(trainer, loop)) {
    DEQ_CHECK(text(key) == value, "{} = {}; last.safetensors was trained with {}", key, value,
              text(key));
  }
  progress = {number("seconds"), number("best_loss"), int64_t(number("since_best"))};
  if (file.metadata.contains("evaluated_at")) {
    progress.evaluated_at = int64_t(number("evaluated_at"));
  } else if (int64_t(number("step")) % loop.limits.eval_every == 0) {
    progress.evaluated_at = int64_t(number("step"));  // a checkpoint from before it was written
  }
  return file;
}

}  // namespace deq
