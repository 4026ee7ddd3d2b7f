// Trained models: what deq.load wraps.
#include "python/models.h"

#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "deq/models/language_model.h"
#include "deq/runs/metrics.h"
#include "deq/runs/run.h"
#include "deq/runs/split.h"
#include "python/bindings.h"
#include "python/errors.h"
#include "python/function.h"
#include "python/modules.h"
#include "python/options.h"
#include "python/reports.h"

namespace deq::python {
namespace {

using at::Tensor;

/// How a run is evaluated or a batch goes through it, where it may differ from the run's options.
struct ModelOptionsInForce {
  EquilibriumOptions equilibrium;
  EvaluationOptions eval;
  Task task;

  static void fields(auto& self, auto&& field) {
    EquilibriumOptions::fields(self.equilibrium, field);
    field("eval", self.eval);
    field("task", self.task, "the run's, with other options");
  }
};

ModelOptionsInForce options_of(const TrainedModel& run, const Assignments& values) {
  ModelOptionsInForce options{run.options.equilibrium, run.options.eval, run.options.task};
  assign(options, values);
  with_python_names(list_options(options), values,
                    [&] { settle(options.equilibrium, run.options.model, values); });
  return options;
}

TrainedModel load(const std::string& folder, const std::string& checkpoint,
                  const std::string& device) {
  const CoreCall call;
  return load_run(folder, checkpoint, device);
}

/// (z, histories for the next segment, report)
py::tuple forward(const TrainedModel& run, const Tensor& tokens, const Histories& histories,
                  const Assignments& values, int64_t history) {
  ForwardOptions how{.equilibrium = options_of(run, values).equilibrium, .history = history};
  const auto latest = std::make_shared<LatestReport>();
  how.on_adjoint = [latest](const Report& report) { latest->set(report); };
  LayerOutput output;
  {
    const CoreCall call;
    output = run.model->forward(tokens, histories, how);
  }
  return py::make_tuple(output.z, std::move(output.histories),
                        SolveReport{std::move(output.report), latest});
}

/// What `deq eval --json` prints of a split.
std::string evaluate_split(TrainedModel& run, const std::string& split, const std::string& data,
                           const Assignments& values) {
  const ModelOptionsInForce options = options_of(run, values);
  const CoreCall call;
  TrainedModel other = run;
  set_task(other, options.task);
  check_evaluation(other.options.task, values, /*measures_leak=*/false);
  const Evaluation result =
      evaluate(*other.model, split_of(other, data, split), options.equilibrium, options.eval,
               [](double) { check_signals(); });
  nlohmann::ordered_json row{{"split", split}};
  row.update(json_of(result, other.options.task));
  row["seconds"] = result.seconds;
  return row.dump();
}

/// The run's options in force, as (key, text, type).
py::list config(const TrainedModel& run) {
  py::list listed;
  for (const OptionInfo& info : options_in_force(run.options))
    listed.append(py::make_tuple(info.key, info.value, info.type));
  return listed;
}

void bind_history(py::module_& module) {
  py::class_<History>(module, "History",
                      "What a segment may see of those before it, of one level of a model.")
      .def_property_readonly("length", &History::length, "positions");
}

}  // namespace

void bind_models(py::module_& module) {
  bind_history(module);
  py::class_<TrainedModel> type(module, "Run");
  type.def(py::init(&load), py::arg("folder"), py::arg("checkpoint") = "",
           py::arg("device") = "cpu")
      .def("named_tensors", [](const TrainedModel& run) { return named_tensors_of(*run.model); })
      .def("train", [](const TrainedModel& run, bool on) { run.model->train(on); })
      .def("forward", &forward)
      .def(
          "loss",
          [](const TrainedModel& run, const Tensor& z, const Tensor& targets) {
            return run.model->loss(z, targets);
          },
          py::call_guard<CoreCall>())
      .def(
          "log_probabilities",
          [](const TrainedModel& run, const Tensor& z) { return run.model->log_probabilities(z); },
          py::call_guard<CoreCall>())
      .def("evaluate", &evaluate_split)
      .def("encode",
           [](const TrainedModel& run, const std::string& text) {
             return run.vocabulary.encode(text, "the text");
           })
      .def("decode",
           [](const TrainedModel& run, const std::vector<int64_t>& ids) {
             for (const int64_t id : ids)
               DEQ_CHECK(id >= 0 && id < run.vocabulary.size(), "token {}; expected 0 to {}", id,
                         run.vocabulary.size() - 1);
             return py::bytes(run.vocabulary.decode(ids));
           })
      .def("continuation",
           [](const TrainedModel& run, int64_t before, const std::vector<int64_t>& ids) {
             std::string text;
             for (const int64_t id : ids)
               text += run.vocabulary.decode_next(id, std::exchange(before, id));
             return py::bytes(text);
           })
      .def("config", &config)
      .def_readonly("folder", &TrainedModel::folder)
      .def_readonly("checkpoint", &TrainedModel::weights)
      .def_property_readonly("vocabulary",
                             [](const TrainedModel& run) { return run.vocabulary.size(); })
      .def_property_readonly("answers", [](const TrainedModel& run) { return run.answers.size(); });
  bind_generation(type);
}

}  // namespace deq::python
