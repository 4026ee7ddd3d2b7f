// Texts continued by a trained model, as `deq generate` continues them.
#include <ATen/CPUGeneratorImpl.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <random>

#include "deq/decode/generate_options.h"
#include "deq/decode/generator.h"
#include "deq/decode/reading.h"
#include "python/errors.h"
#include "python/function.h"
#include "python/models.h"
#include "python/options.h"

namespace deq::python {
namespace {

GenerateOptions options_of(const TrainedModel& run, const Assignments& values) {
  GenerateOptions options;
  options.equilibrium = run.options.equilibrium;
  int64_t& max_steps = options.equilibrium.stop.max_steps;
  max_steps = std::max(max_steps, kGenerationSteps);
  assign(options, values);
  with_python_names(list_options(options), values, [&] {
    check_sampling(options.sampling);
    settle(options.equilibrium, run.options.model, values);
    check_draws(options.sampling, run.vocabulary.size(), values);
  });
  if (options.seed == 0) options.seed = int64_t(std::random_device{}());
  return options;
}

/// Weights are read rounded while it lives, where they are to be.
class ReadingGuard {
 public:
  ReadingGuard(Model& model, const ReadingOptions& options)
      : model_(model), before_{model.weight_type()} {
    model_.read_weights(options);
  }
  ~ReadingGuard() { model_.read_weights(before_); }

 private:
  Model& model_;
  ReadingOptions before_;
};

/// The model is in evaluation mode while it lives.
class EvaluationGuard {
 public:
  explicit EvaluationGuard(Model& model) : model_(model), training_(model.is_training()) {
    model_.eval();
  }
  ~EvaluationGuard() { model_.train(training_); }

 private:
  Model& model_;
  bool training_;
};

/// The tokens of each text behind its prompt; `on_token(text, token) -> bool` hears of each.
std::vector<std::vector<int64_t>> generated(const TrainedModel& run,
                                            const std::vector<std::vector<int64_t>>& prompts,
                                            const GenerateOptions& options, const OnToken& on_token,
                                            GenerationReport& report) {
  DEQ_CHECK(continues_text(run.options.task),
            "run '{}' is of task {}, which answers whole sequences; expected a text to continue",
            run.folder, task_name(run.options.task));
  LanguageModel& model = language_model(*run.model);
  const EvaluationGuard evaluation(model);
  const ReadingGuard reading(model, options.reading);
  const PromptReading pieces =
      reading_of(run.options.eval.length, run.options.eval.history, options.history);
  TextGenerator generator(model, options.equilibrium, pieces.history, int64_t(prompts.size()),
                          pieces.length);
  generator.feed_all(prompts);
  check_signals();
  std::vector<at::Generator> random;
  for (size_t i = 0; i < prompts.size(); ++i)
    random.push_back(at::make_generator<at::CPUGeneratorImpl>(uint64_t(options.seed) + i));
  std::vector<std::vector<int64_t>> texts(prompts.size());
  generator.generate(std::vector<int64_t>(prompts.size(), options.tokens), options.sampling, random,
                     [&](int64_t text, int64_t token) {
                       check_signals();
                       texts[size_t(text)].push_back(token);
                       return !on_token || on_token(text, token);
                     });
  report = generator.report();
  return texts;
}

OnToken listener_of(py::object on_token) {
  if (on_token.is_none()) return {};
  return [listener = held(std::move(on_token))](int64_t text, int64_t token) {
    const py::gil_scoped_acquire gil;
    try {
      const py::object answer = py::handle(listener.get())(text, token);
      return answer.is_none() || PyObject_IsTrue(answer.ptr()) == 1;
    } catch (py::error_already_set& error) {
      throw_python_error(error);
    }
  };
}

py::tuple generate(const TrainedModel& run, const std::vector<std::vector<int64_t>>& prompts,
                   const Assignments& values, py::object on_token) {
  const GenerateOptions options = options_of(run, values);
  const OnToken listener = listener_of(std::move(on_token));
  GenerationReport report;
  std::vector<std::vector<int64_t>> texts;
  {
    const CoreCall call;
    texts = generated(run, prompts, options, listener, report);
  }
  py::dict said;
  said["tokens"] = report.tokens;
  said["prompt_tokens"] = report.prompt_tokens;
  said["prompt_evaluations"] = report.prompt_evaluations;
  said["prompt_converged_share"] = report.prompt_converged_share;
  said["evaluations"] = report.evaluations;
  said["converged"] = report.converged;
  said["worst_residual"] = report.worst_residual;
  said["seed"] = options.seed;
  return py::make_tuple(texts, said);
}

}  // namespace

void bind_generation(py::class_<TrainedModel>& type) { type.def("generate", &generate); }

}  // namespace deq::python
