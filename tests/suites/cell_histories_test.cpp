// What every registered cell promises of the past: histories, beginnings, parts, decoding.
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/cells/decoder.h"
#include "tests/suites/cell_cases.h"

namespace deq {
namespace {

using at::Tensor;

class CellHistories : public testing::CellTest {};

// With a tape the history holds states, without one what was computed from them.
TEST_P(CellHistories, AHistoryIsTheBeginningOfOneSequence) {
  if (!cell->causal()) GTEST_SKIP() << "not causal";
  for (const bool taped : {true, false}) {
    at::AutoGradMode mode(taped);
    const Tensor whole = cell->bind(x, {})(z);
    for (const int64_t first : {1, 4, 8}) {
      const Bound rest = cell->bind(x.narrow(1, first, T - first), after(first, 100));
      const Tensor found = rest(z.narrow(1, first, T - first));
      EXPECT_LT((found - whole.narrow(1, first, T - first)).abs().max().item<double>(), 1e-12)
          << "from position " << first;
    }
  }
}

TEST_P(CellHistories, HistoriesOfSegmentsJoin) {
  if (!cell->causal()) GTEST_SKIP() << "not causal";
  at::AutoGradMode no_tape(false);
  const Tensor whole = cell->bind(x, {})(z);
  History history;
  for (int64_t t = 0; t < T; ++t) {  // one position at a time
    const Bound f = cell->bind(x.narrow(1, t, 1), history);
    const Tensor found = f(z.narrow(1, t, 1));
    EXPECT_LT((found - whole.narrow(1, t, 1)).abs().max().item<double>(), 1e-12);
    history = f.extend(z.narrow(1, t, 1), 100);
    EXPECT_EQ(f.extend(z.narrow(1, t, 1), 0).length(), 0);
  }
}

// Row 1 begins anew and row 0 goes on, in the segment at hand, in its parts, and in the next one.
TEST_P(CellHistories, ARowThatBeginsAnewHasNoPast) {
  if (!keeps_past()) GTEST_SKIP() << "no past";
  const Tensor own_x = x.narrow(1, 4, 5), own_z = z.narrow(1, 4, 5);
  const auto expect_row = [](const Tensor& found, const Tensor& expected, int64_t row) {
    EXPECT_LT((found[row] - expected[row]).abs().max().item<double>(), 1e-12) << "row " << row;
  };
  for (const auto& [taped, length] :
       {std::pair(true, 100), std::pair(false, 100), std::pair(true, 6), std::pair(false, 6)}) {
    at::AutoGradMode mode(taped);
    const History past = after(4, 100);
    History mixed = past;
    cell->forget(mixed, {1}, 0);
    const Bound old = cell->bind(own_x, past), fresh = cell->bind(own_x, {});
    const Bound f = cell->bind(own_x, mixed);
    const Tensor found = f(own_z), without = fresh(own_z), with = old(own_z);
    EXPECT_TRUE(at::equal(found[0], with[0]));
    expect_row(found, without, 1);
    EXPECT_FALSE(at::allclose(found[1], with[1]));
    if (f.f.part() && cell->injects()) {
      const Tensor part = f.f.part()(own_z.narrow(1, 0, 2), 2, 3)(own_z.narrow(1, 2, 3));
      expect_row(part, without.narrow(1, 2, 3), 1);
    }
    const auto next = [&](const Bound& bound) {
      return cell->bind(own_x, bound.extend(own_z, length))(own_z);
    };
    expect_row(next(f), next(fresh), 1);
    expect_row(next(f), next(old), 0);
  }
}

// Of a longer history row 1 keeps what a shorter one has; a state is kept whole.
TEST_P(CellHistories, ARowThatForgetsSeesWhatIsLeft) {
  if (!keeps_past()) GTEST_SKIP() << "no past";
  for (const bool taped : {true, false}) {
    at::AutoGradMode mode(taped);
    const Tensor own_x = x.narrow(1, 5, 4), own_z = z.narrow(1, 5, 4);
    const History past = after(5, 100);
    History mixed = past;
    cell->forget(mixed, {1}, 2);
    cell->forget(mixed, {0, 1}, 4);  // what is forgotten stays forgotten
    const Tensor found = cell->bind(own_x, mixed)(own_z);
    for (const auto& [row, kept] : {std::pair(0, 4), std::pair(1, 2)}) {
      const Tensor expected = cell->bind(own_x, after(5, kept))(own_z);
      EXPECT_LT((found[row] - expected[row]).abs().max().item<double>(), 1e-12) << "row " << row;
    }
  }
}

TEST_P(CellHistories, ARowThatBeginsAnewHasTheGradientsOfOneWithoutAPast) {
  if (!keeps_past()) GTEST_SKIP() << "no past";
  const Tensor own_x = x.narrow(1, 4, 5).clone().requires_grad_(true);
  const Tensor own_z = z.narrow(1, 4, 5).clone().requires_grad_(true);
  History mixed = after(4, 100);
  cell->forget(mixed, {1}, 0);
  const Tensor probe = at::randn_like(own_z[1]);
  std::vector<Tensor> inputs = cell->parameters();
  inputs.push_back(own_z);
  if (cell->injects()) inputs.push_back(own_x);
  const auto gradients = [&](const History& history) {
    const Tensor value = (cell->bind(own_x, history)(own_z)[1] * probe).sum();
    return torch::autograd::grad({value}, inputs, {}, false, false, false);
  };
  const auto found = gradients(mixed), expected = gradients({});
  for (size_t i = 0; i < inputs.size(); ++i)
    EXPECT_LT((found[i] - expected[i]).abs().max().item<double>(), 1e-12) << "input " << i;
}

TEST_P(CellHistories, PartsAreRowsOfTheWhole) {
  if (!cell->causal() || !cell->injects()) GTEST_SKIP() << "no equilibrium by parts";
  const Bound f = cell->bind(x.narrow(1, 3, 6), after(3, 100));
  const Tensor own = z.narrow(1, 3, 6), whole = f(own);
  for (const auto& [first, count] :
       {std::pair(0, 6), std::pair(0, 2), std::pair(2, 3), std::pair(5, 1)}) {
    const Map part = f.f.part()(own.narrow(1, 0, first), first, count);
    const Tensor found = part(own.narrow(1, first, count));
    EXPECT_LT((found - whole.narrow(1, first, count)).abs().max().item<double>(), 1e-12)
        << first << " + " << count;
  }
}

// Texts that go on at different times, behind pasts of different lengths.
TEST_P(CellHistories, TextsThatAreDecodedHaveTheFThatIsBound) {
  if (!cell->causal()) GTEST_SKIP() << "not causal";
  c10::NoGradGuard no_tape;
  constexpr int64_t kLength = 5, kTexts = 3, kTokens = 7;
  const Tensor inputs = at::randn({kTokens, 1, cell->input_width()}, at::kDouble);
  const auto input = [&](const std::vector<int64_t>& tokens) {
    return inputs.index_select(0, at::tensor(tokens, at::kLong));
  };
  std::vector<History> pasts(kTexts);
  for (int64_t text = 1; text < kTexts; ++text) {
    const Bound f = cell->bind(x.narrow(0, 0, 1).narrow(1, 0, 3 * text), {});
    pasts[size_t(text)] = f.extend(z.narrow(0, 0, 1).narrow(1, 0, 3 * text), kLength);
  }
  const auto decoder = cell->decode(pasts, kLength, input);
  std::vector<Bound> bound(kTexts);
  for (int64_t step = 0; step < 20; ++step) {
    std::vector<int64_t> texts, tokens, done;
    for (int64_t text = 0; text < kTexts; ++text) {
      if (step > 0 && (step + text) % (text + 1) != 0) continue;
      texts.push_back(text);
      tokens.push_back((step * 3 + text) % kTokens);
      bound[size_t(text)] = cell->bind(input({tokens.back()}), pasts[size_t(text)]);
    }
    decoder->enter(texts, tokens);
    const Tensor states = at::randn({kTexts, 1, cell->state_width()}, at::kDouble);
    for (int64_t text = 0; text < kTexts; ++text) done.push_back(step % 4 == 2 && text == 1);
    const Tensor found = decoder->evaluate(states, done);
    for (int64_t text = 0; text < kTexts; ++text) {
      if (done[size_t(text)]) continue;
      EXPECT_TRUE(
          at::equal(found.narrow(0, text, 1), bound[size_t(text)](states.narrow(0, text, 1))))
          << "text " << text << ", step " << step;
    }
    texts.clear();
    for (int64_t text = 0; text < kTexts; ++text) {
      if ((step + 1 + text) % (text + 1) != 0) continue;
      texts.push_back(text);
      pasts[size_t(text)] = bound[size_t(text)].extend(states.narrow(0, text, 1), kLength);
    }
    decoder->advance(texts, states.index_select(0, at::tensor(texts, at::kLong)));
  }
  const std::vector<History> found = decoder->pasts();
  for (size_t text = 0; text < found.size(); ++text) {
    for (const auto part : {&History::z, &History::x, &History::k, &History::v}) {
      const Tensor &own = found[text].*part, &expected = pasts[text].*part;
      ASSERT_EQ(own.defined(), expected.defined());
      EXPECT_TRUE(!own.defined() || at::equal(own, expected));
    }
    EXPECT_EQ(found[text].weights, pasts[text].weights);
  }
}

INSTANTIATE_TEST_SUITE_P(Cells, CellHistories, ::testing::ValuesIn(testing::cell_cases()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace deq
