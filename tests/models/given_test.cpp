// Models whose state is the answer: what is given goes in as it is, and what comes out is a chance
// or a score.
#include "deq/heads/given.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "deq/cells/conditions.h"
#include "deq/models/model.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;
using testing::error_of;

TEST(GivenReader, SaysWhatIsGiven) {
  const Tensor tokens = at::tensor({0, 2, 3}, at::kLong).view({1, 3});
  const Tensor expected = at::tensor({-1, -1, -1, 0, 1, 0, 0, 0, 1}, at::kFloat).view({1, 3, 3});
  EXPECT_TRUE(at::equal(GivenReader(3).forward(tokens), expected));
  const Tensor bits = at::tensor({0, 1, 1}, at::kLong).view({1, 3});
  EXPECT_TRUE(at::equal(GivenReader(1).forward(bits), bits.to(at::kFloat).unsqueeze(2)));
}

TEST(ChanceHead, ItsLossIsTheBinaryCrossEntropyOfAllSymbols) {
  const ChanceHead head(3);
  const Tensor z = at::rand({2, 4, 3}, at::kDouble) * 0.9 + 0.05;
  const Tensor targets = at::randint(3, {2, 4}, at::kLong);
  const Tensor one_hot = targets.unsqueeze(2).eq(at::arange(3)).to(at::kDouble);
  const Tensor expected = -(one_hot * z.log() + (1 - one_hot) * (1 - z).log()).sum(2);
  EXPECT_TRUE(at::allclose(head.loss(z, targets), expected, 1e-12, 1e-12));
  const Tensor all = head.log_probabilities(z);
  EXPECT_TRUE(at::equal(all.argmax(2), z.argmax(2)));
  EXPECT_LT(all.exp().sum(2).max().item<double>(), 1);
  // Of certain ones losses are finite.
  const Tensor sure = at::tensor({1.0, 0.0, 0.0}, at::kDouble).view({1, 1, 3});
  EXPECT_NEAR(head.loss(sure, at::zeros({1, 1}, at::kLong)).item<double>(), 3e-6, 1e-8);
  EXPECT_NEAR(head.loss(sure, at::ones({1, 1}, at::kLong)).item<double>(), 2 * std::log(1e6), 0.01);
}

TEST(ChanceHead, OfBitsItIsTheChanceOfTheSecond) {
  const Tensor z = at::tensor({0.3, 0.9}, at::kDouble).view({1, 2, 1});
  const Tensor expected = at::tensor({0.7, 0.3, 0.1, 0.9}, at::kDouble).view({1, 2, 2}).log();
  EXPECT_TRUE(at::allclose(ChanceHead(1).log_probabilities(z), expected));
  const Tensor targets = at::tensor({0, 0}, at::kLong).view({1, 2});
  EXPECT_TRUE(at::allclose(ChanceHead(1).loss(z, targets), -expected.select(2, 0)));
}

TEST(ScoreHead, IsASoftmaxAsSharpAsItIsTold) {
  const Tensor z = at::randn({2, 4, 3}, at::kDouble);
  const ScoreHead head(5);
  EXPECT_TRUE(at::allclose(head.log_probabilities(z), (5 * z).log_softmax(2)));
  const Tensor targets = at::randint(3, {2, 4}, at::kLong);
  EXPECT_TRUE(at::allclose(head.loss(z, targets),
                           -(5 * z).log_softmax(2).gather(2, targets.unsqueeze(2)).squeeze(2)));
}

ModelOptions options_of(const CellOptions& cell) {
  ModelOptions options;
  options.cell = cell;
  options.embedding.tie_weights = false;
  return options;
}

TEST(GivenModel, ItsOnlyParametersAreTheConditions) {
  at::manual_seed(1);
  Model clauses(options_of(LearnedClauses{.places = 6, .auxiliary = 2, .clauses = 5}), {4, 3});
  EXPECT_EQ(clauses.parameter_count(true), (1 + 6 * 3 + 2) * 5);
  Model program(options_of(LearnedProgram{.places = 6, .equalities = 7}), {4, 3});
  EXPECT_EQ(program.parameter_count(true), 7 * 18 + 18);
  Model chain(options_of(ChainedClauses{}), {2, 2});
  EXPECT_EQ(chain.parameter_count(true), (1 + 3 + 4) * 4);

  // A symbol that is given is answered, whatever else.
  const Tensor tokens = at::tensor({0, 3, 0, 1, 0, 0}, at::kLong).view({1, 2, 3});
  ForwardOptions how;
  how.equilibrium.stop = {.max_steps = 50, .rel_tol = 1e-3};
  const LayerOutput found = clauses.forward(tokens, {}, how);
  const Tensor answers = clauses.log_probabilities(found.z).argmax(-1);
  ASSERT_EQ(answers.sizes(), tokens.sizes());
  EXPECT_EQ(answers[0][0][1].item<int64_t>(), 2);
  EXPECT_EQ(answers[0][1][0].item<int64_t>(), 0);
  const auto copy = clauses.clone();
  EXPECT_TRUE(at::equal(copy->forward(tokens, {}, how).z, found.z));
}

TEST(GivenModel, RefusesOtherVocabulariesAndEnds) {
  EXPECT_SAYS(error_of([] {
                Model(options_of(LearnedClauses{.places = 4}), {3, 3});
              }),
              "cell = maxsat: 3 symbols are read and 3 answered; expected a blank and each");
  EXPECT_SAYS(error_of([] {
                Model(options_of(ChainedClauses{}), {3, 2});
              }),
              "cell = maxsat-chain: 3 symbols are read and 2 answered; expected 2 and 2, bits");
  ModelOptions pooled = options_of(LearnedClauses{.places = 4});
  pooled.ends.pool = true;
  EXPECT_SAYS(error_of([&] { Model(pooled, {4, 3}); }), "its answer; expected symbols, false");
}

}  // namespace
}  // namespace deq
