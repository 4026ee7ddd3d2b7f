// The weights of a model: how a run makes them, and how they stand in files.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "deq/train/options.h"

namespace deq {

/// As a run of this task needs it: of a text a LanguageModel.
std::shared_ptr<Model> make_model(const Task& task, const ModelOptions& options,
                                  const Vocabularies& symbols);

/// The same with the weights of the run's seed, on its device.
std::shared_ptr<Model> seeded_model(const TrainOptions& options, const Vocabularies& symbols);

/// The parameters of a model by name, shared, not copied.
NamedTensors parameters_of(const Model& model);
/// Its parameters and buffers.
NamedTensors named_tensors(const Model& model);
/// Copies `tensors` into the model. Throws deq::Error for one that is missing, unknown or does not
/// fit.
void load_weights(Model& model, const NamedTensors& tensors, const std::string& source);

}  // namespace deq
