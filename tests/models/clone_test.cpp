// A clone of a language model is the same model, and no part of it.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/models/language_model.h"

namespace deq {
namespace {

using at::Tensor;

TEST(LanguageModel, ACloneIsTheSameAndSharesNothing) {
  ModelOptions options;
  TrellisNet cell{.hidden = 5, .output = 4};
  cell.dropout.hidden = 0.3;
  options.cell = cell;
  options.embedding.scaled = false;
  LanguageModel model(options, 11);
  model.train();
  model.embedding().eval();
  model.cell().parameters().front().set_requires_grad(false);
  const Tensor tokens = at::randint(11, {2, 6}, at::kLong);
  const auto after = [&](LanguageModel& of) {
    at::NoGradGuard no_tape;
    at::manual_seed(5);
    return of.log_probabilities(of.forward(tokens, {}, {}).z);
  };
  at::manual_seed(3);
  const Tensor drawn = at::rand({2});
  at::manual_seed(3);
  const std::shared_ptr<LanguageModel> copy = model.clone();
  EXPECT_TRUE(at::equal(at::rand({2}), drawn)) << "numbers were drawn";
  EXPECT_TRUE(copy->is_training());
  EXPECT_FALSE(copy->embedding().is_training());
  EXPECT_TRUE(copy->cell().is_training());
  const Tensor before = after(model);
  EXPECT_TRUE(at::equal(after(*copy), before));
  const auto own = model.named_parameters(), copied = copy->named_parameters();
  ASSERT_EQ(own.size(), copied.size());
  at::NoGradGuard no_tape;
  for (const auto& item : own) {
    const Tensor& other = copied[item.key()];
    EXPECT_TRUE(at::equal(item.value(), other)) << item.key();
    EXPECT_NE(item.value().data_ptr(), other.data_ptr()) << item.key();
    EXPECT_EQ(item.value().requires_grad(), other.requires_grad()) << item.key();
    Tensor(other).add_(0.5);
  }
  EXPECT_TRUE(at::equal(after(model), before));
  EXPECT_FALSE(at::equal(after(*copy), before));
}

TEST(LanguageModel, ACloneReadsItsWeightsAsTheModelDoes) {
  ModelOptions options;
  Transformer cell;
  cell.width = 16;
  cell.heads = 2;
  cell.inner = 24;
  options.cell = cell;
  LanguageModel model(options, 11);
  model.read_weights({WeightType::Bfloat16});
  model.eval();
  const auto copy = model.clone();
  EXPECT_EQ(copy->weight_type(), WeightType::Bfloat16);
  at::NoGradGuard no_tape;
  const Tensor tokens = at::randint(11, {1, 6}, at::kLong);
  const auto solved = [&](LanguageModel& of) { return of.forward(tokens, {}, {}).z; };
  EXPECT_TRUE(at::equal(solved(*copy), solved(model)));
  model.read_weights({WeightType::Exact});
  EXPECT_FALSE(at::equal(solved(*copy), solved(model)));
}

TEST(LanguageModel, AClonesTypeIsTheModels) {
  LanguageModel model(ModelOptions{.cell = TrellisNet{.hidden = 5, .output = 4}}, 11);
  model.to(at::kDouble);
  const auto copy = model.clone();
  for (const Tensor& parameter : copy->parameters())
    EXPECT_EQ(parameter.scalar_type(), at::kDouble);
}

TEST(LanguageModel, IsClonedThroughLibTorchsInterface) {
  LanguageModel model(ModelOptions{}, 11);
  const torch::nn::Module& module = model;
  const std::shared_ptr<torch::nn::Module> copy = module.clone(at::Device(at::kCPU));
  const auto own = model.named_parameters(), copied = copy->named_parameters();
  ASSERT_EQ(own.size(), copied.size());
  for (const auto& item : own) {
    EXPECT_TRUE(at::equal(item.value(), copied[item.key()])) << item.key();
    EXPECT_NE(item.value().data_ptr(), copied[item.key()].data_ptr()) << item.key();
  }
}

}  // namespace
}  // namespace deq
