// Reading a run back: its options, its model, its data.
#include <tuple>

#include "deq/base/device.h"
#include "deq/base/toml.h"
#include "deq/files/files.h"
#include "deq/files/safetensors.h"
#include "deq/runs/run.h"
#include "deq/runs/run_files.h"

namespace deq {

namespace fs = std::filesystem;

namespace {

/// That it can be a run's: what is not there would be taken for its default.
void check_configuration(const Assignments& values, const std::string& path) {
  DEQ_CHECK(!values.empty(), "{}: empty; expected the options of a run, as deq train writes them",
            path);
  for (const char* key : {"task", "cell"})
    DEQ_CHECK(values.count(key),
              "{}: no {}; expected all options of a run, as deq train writes them", path, key);
}

}  // namespace

TrainOptions read_run_options(const fs::path& folder) {
  DEQ_CHECK(fs::is_directory(folder), "run folder '{}' is missing", folder.string());
  const fs::path path = folder / "config.toml";
  TrainOptions options;
  Places places;
  const Assignments values = parse_toml(read_file(path, kMaxText), path.string(), &places);
  check_configuration(values, path.string());
  assign_options(options, values, places);
  return options;
}

TrainedModel load_run(const fs::path& folder, const std::string& checkpoint,
                      const std::string& device) {
  const at::Device place = use_device(device);
  DEQ_CHECK(checkpoint.empty() || checkpoint == "best" || checkpoint == "last",
            "unknown checkpoint '{}'; known: best, last", checkpoint);
  const TrainOptions options = read_run_options(folder);
  TrainedModel run{options,
                   Vocabulary::load(folder / kVocabulary),
                   answers_in(folder, options.task->own_answers()),
                   nullptr,
                   checkpoint,
                   folder.string()};
  if (checkpoint.empty()) run.weights = fs::exists(folder / kBest) ? "best" : "last";
  DEQ_CHECK(!checkpoint.empty() || fs::exists(folder / kBest) || fs::exists(folder / kLast),
            "run folder '{}' has no weights; expected {} or {}", folder.string(), kBest, kLast);
  const fs::path path = folder / (run.weights + ".safetensors");
  TensorFile file = load_tensors(path);
  require_all_read(file, path.string());
  const auto fingerprint = file.metadata.find("vocabulary");
  DEQ_CHECK(
      fingerprint != file.metadata.end() && fingerprint->second == run.vocabulary.fingerprint(),
      "{}: vocab.txt does not fit the checkpoint", folder.string());
  const auto answers = file.metadata.find("answers");
  DEQ_CHECK(answers == file.metadata.end() || answers->second == run.answers.fingerprint(),
            "{}: answers.txt does not fit the checkpoint", folder.string());
  if (run.weights == "last") {
    NamedTensors weights;
    for (const std::string prefix :
         {"model.", "average.value."}) {  // the average, where one is kept
      for (const auto& [name, tensor] : file.tensors) {
        if (name.rfind(prefix, 0) == 0) weights[name.substr(prefix.size())] = tensor;
      }
    }
    file.tensors = std::move(weights);
  }
  run.model =
      make_model(run.options.task, run.options.model, {run.vocabulary.size(), run.answers.size()});
  load_weights(*run.model, file.tensors, path.string());
  run.model->to(place);
  run.model->eval();
  return run;
}

void set_task(TrainedModel& run, const Task& task) {
  DEQ_CHECK(task.name() == std::string(run.options.task.name()),
            "task = {}; expected {}, the run's, of which other options can be given", task.name(),
            run.options.task.name());
  run.options.task = task;
  const auto own = task->vocabularies();
  if (!own || (own->first.fingerprint() == run.vocabulary.fingerprint() &&
               own->second.fingerprint() == run.answers.fingerprint()))
    return;
  std::tie(run.vocabulary, run.answers) = *own;
  const at::Device place = run.model->device();
  const auto model =
      make_model(task, run.options.model, {run.vocabulary.size(), run.answers.size()});
  load_weights(*model, named_tensors(*run.model), run.folder);
  model->to(place);
  model->eval();
  run.model = model;
}

Corpus load_corpus(const TrainedModel& run, const std::string& data) {
  return load(run.options.task, data.empty() ? run.options.data : data, run.vocabulary,
              run.answers);
}

void check_equilibrium(const TrainedModel& run) {
  DEQ_CHECK(!run.model->is_explicit(),
            "run '{}' is an explicit network of depth {}; expected one with equilibria", run.folder,
            run.options.model.depth.depth);
}

}  // namespace deq
