#include "deq/train/weights.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "deq/base/device.h"
#include "deq/models/language_model.h"

namespace deq {

std::shared_ptr<Model> make_model(const Task& task, const ModelOptions& options,
                                  const Vocabularies& symbols) {
  if (!continues_text(task)) return std::make_shared<Model>(options, symbols);
  return std::make_shared<LanguageModel>(options, symbols.inputs);
}

std::shared_ptr<Model> seeded_model(const TrainOptions& options, const Vocabularies& symbols) {
  const at::Device device = use_device(options.loop.run.device);
  at::manual_seed(uint64_t(options.loop.run.seed));  // of every device
  const auto model = make_model(options.task, options.model, symbols);
  model->to(device);
  return model;
}

NamedTensors parameters_of(const Model& model) {
  NamedTensors parameters;
  for (const auto& item : model.named_parameters()) parameters[item.key()] = item.value();
  return parameters;
}

NamedTensors named_tensors(const Model& model) {
  NamedTensors tensors = parameters_of(model);
  for (const auto& item : model.named_buffers()) tensors[item.key()] = item.value();
  return tensors;
}

void load_weights(Model& model, const NamedTensors& tensors, const std::string& source) {
  c10::AutoGradMode no_tape(false);
  NamedTensors own = named_tensors(model);
  for (const auto& [name, tensor] : tensors) {
    DEQ_CHECK(own.count(name), "{}: weight '{}' does not belong to this model", source, name);
  }
  for (auto& [name, tensor] : own) {
    const auto found = tensors.find(name);
    DEQ_CHECK(found != tensors.end(), "{}: weight '{}' is missing", source, name);
    DEQ_CHECK(found->second.sizes() == tensor.sizes(),
              "{}: weight '{}' has shape [{}]; expected [{}]", source, name,
              fmt::join(found->second.sizes(), ", "), fmt::join(tensor.sizes(), ", "));
  }
  for (auto& [name, tensor] : own) tensor.copy_(tensors.at(name));
}

}  // namespace deq
