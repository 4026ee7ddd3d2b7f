#pragma once

#include "deq/models/model.h"

namespace deq {

/// A model of texts: it reads and answers in one vocabulary, of which tables may be shared, and
/// what it answers at a position is the token behind it.
class LanguageModel final : public Model {
 public:
  LanguageModel(const ModelOptions& options, int64_t vocabulary)
      : Model(options, {vocabulary, vocabulary}) {}

  int64_t vocabulary() const { return symbols().inputs; }

  std::shared_ptr<LanguageModel> clone() const {
    return std::static_pointer_cast<LanguageModel>(Model::clone());
  }
  using Model::clone;

 private:
  std::shared_ptr<Model> another() const override {
    return std::make_shared<LanguageModel>(options(), vocabulary());
  }
};

/// Throws deq::Error where the model is not one of texts.
inline LanguageModel& language_model(Model& model) {
  auto* found = dynamic_cast<LanguageModel*>(&model);
  DEQ_CHECK(found, "a model of problems that stand alone; expected one of texts");
  return *found;
}

}  // namespace deq
