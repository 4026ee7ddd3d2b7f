// What every registered cell promises: causality, histories, parts, masks, gradients.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/cells/cells.h"
#include "deq/cells/decoder.h"
#include "deq/cells/recurrent.h"
#include "deq/cells/tcn.h"
#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/solvers/anderson.h"
#include "deq/solvers/solvers.h"
#include "tests/allocations.h"

namespace deq {
namespace {

using at::Tensor;

struct CellCase {
  const char* name;
  CellOptions options;
  CellPlace place = {};
};

std::vector<CellCase> cases() {
  const Transformer transformer{.width = 8, .heads = 2, .inner = 12};
  Transformer pre = transformer, bidirectional = transformer, windowed = transformer;
  Transformer published = transformer;
  published.norm = NormPlace::PrePublished;
  pre.norm = NormPlace::Pre;
  pre.weight_norm = false;
  bidirectional.causal = false;
  windowed.window = 3;
  const TrellisNet trellis{.hidden = 5, .output = 3, .input = 4};
  TrellisNet wide = trellis;
  wide.kernel = 3;
  wide.dilation = 2;
  wide.weight_norm = false;
  TrellisNet narrow = trellis;
  narrow.kernel = 1;
  return {{"transformer", transformer},
          {"transformer_pre", pre},
          {"transformer_pre_published", published},
          {"transformer_window", windowed},
          {"transformer_bidirectional", bidirectional},
          {"transformer_without_injection", transformer, {.injection = false}},
          {"trellisnet", trellis},
          {"trellisnet_wide", wide},
          {"trellisnet_kernel_1", narrow},
          {"lstm", Lstm{{.width = 6}}},
          {"gru", Gru{{.width = 6}}},
          {"tcn", Tcn{.width = 6, .kernel = 3}, {.level = 1}}};
}

class CellSuite : public ::testing::TestWithParam<CellCase> {
 protected:
  static constexpr int64_t B = 2, T = 9;

  void SetUp() override {
    at::manual_seed(11);
    cell = make_cell(GetParam().options, GetParam().place);
    cell->initialise(0.4);
    cell->to(at::kDouble);
    cell->eval();
    x = at::randn({B, T, cell->input_width()}, at::kDouble);
    z = at::randn({B, T, cell->state_width()}, at::kDouble);
  }
  /// The history after `count` positions of x and z.
  History after(int64_t count, int64_t length) {
    const Bound f = cell->bind(x.narrow(1, 0, count), {});
    const Tensor seen = z.narrow(1, 0, count);
    f(seen);
    return f.extend(seen, length);
  }

  std::shared_ptr<Cell> cell;
  Tensor x, z;
};

TEST_P(CellSuite, ASeriesOfEvaluationsUsesItsMemoryAgain) {
  if (!cell->injects()) GTEST_SKIP() << "no equilibrium";
  c10::NoGradGuard no_tape;
  const Map::Series series = cell->bind(x, {}).f.series();
  const Tensor known = cell->bind(x, {})(z);
  std::vector<Tensor> kept(3);  // as a solver keeps its past
  testing::AllocationCount allocations;
  int64_t before = 0;
  for (size_t step = 0; step < 12; ++step) {
    if (step == 6) before = allocations.count();
    kept[step % 3] = series(z, step == 0 ? std::vector<int64_t>{} : std::vector<int64_t>{4, 7});
    EXPECT_TRUE(at::equal(kept[step % 3], known));
  }
  EXPECT_GT(before, 0);
  EXPECT_EQ(allocations.count(), before);
}

TEST_P(CellSuite, ReadsItsWeightsRoundedWhereItSaysSo) {
  const Tensor taped = cell->bind(x, {})(z).detach();
  c10::NoGradGuard no_tape;
  const Tensor exact = cell->bind(x, {})(z);
  if (!cell->read_weights(WeightType::Bfloat16)) {
    EXPECT_FALSE(cell->injects());
    EXPECT_TRUE(cell->read_weights(WeightType::Exact));
    EXPECT_TRUE(at::equal(cell->bind(x, {})(z), exact));
    return;
  }
  const Tensor rounded = cell->bind(x, {})(z);
  const double change = ((rounded - exact).norm() / exact.norm()).item<double>();
  EXPECT_GT(change, 1e-5);
  EXPECT_LT(change, 1e-2);
  {
    at::AutoGradMode tape(true);
    EXPECT_TRUE(at::equal(cell->bind(x, {})(z), taped));
  }
  EXPECT_TRUE(cell->read_weights(WeightType::Exact));
  EXPECT_TRUE(at::equal(cell->bind(x, {})(z), exact));
}

TEST_P(CellSuite, TellsWhetherItIsCausal) {
  const Tensor before = cell->bind(x, {})(z);
  EXPECT_EQ(before.sizes(), z.sizes());
  Tensor other_x = x.clone(), other_z = z.clone();
  other_x.narrow(1, 6, 3).normal_();
  other_z.narrow(1, 6, 3).normal_();
  const Tensor after = cell->bind(other_x, {})(other_z);
  EXPECT_EQ(at::equal(before.narrow(1, 0, 6), after.narrow(1, 0, 6)), cell->causal());
  EXPECT_FALSE(at::equal(before.narrow(1, 6, 3), after.narrow(1, 6, 3)));
}

TEST_P(CellSuite, TellsWhetherItDependsOnItsInput) {
  EXPECT_EQ(!at::equal(cell->bind(x, {})(z), cell->bind(at::randn_like(x), {})(z)),
            cell->injects());
}

// With a tape the history holds states, without one what was computed from them.
TEST_P(CellSuite, AHistoryIsTheBeginningOfOneSequence) {
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

TEST_P(CellSuite, HistoriesOfSegmentsJoin) {
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
TEST_P(CellSuite, ARowThatBeginsAnewHasNoPast) {
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
    if (f.part && cell->injects()) {
      const Tensor part = f.part(own_z.narrow(1, 0, 2), 2, 3)(own_z.narrow(1, 2, 3));
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
TEST_P(CellSuite, ARowThatForgetsSeesWhatIsLeft) {
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

TEST_P(CellSuite, ARowThatBeginsAnewHasTheGradientsOfOneWithoutAPast) {
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

TEST_P(CellSuite, PartsAreRowsOfTheWhole) {
  if (!cell->causal() || !cell->injects()) GTEST_SKIP() << "no equilibrium by parts";
  const Bound f = cell->bind(x.narrow(1, 3, 6), after(3, 100));
  const Tensor own = z.narrow(1, 3, 6), whole = f(own);
  for (const auto& [first, count] :
       {std::pair(0, 6), std::pair(0, 2), std::pair(2, 3), std::pair(5, 1)}) {
    const Map part = f.part(own.narrow(1, 0, first), first, count);
    const Tensor found = part(own.narrow(1, first, count));
    EXPECT_LT((found - whole.narrow(1, first, count)).abs().max().item<double>(), 1e-12)
        << first << " + " << count;
  }
}

// Texts that go on at different times, behind pasts of different lengths.
TEST_P(CellSuite, TextsThatAreDecodedHaveTheFThatIsBound) {
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

TEST_P(CellSuite, ASolveWithoutWhatIsDoneIsTheSameSolve) {
  if (!cell->injects()) GTEST_SKIP() << "no equilibrium";
  at::AutoGradMode no_tape(false);
  const Bound f = cell->bind(x, {});
  const Map whole = [&](const Tensor& z) { return f.f(z); };
  double converged = 0;  // something is left out
  for (const Scope scope : {Scope::Sample, Scope::Position, Scope::Causal}) {
    if (scope != Scope::Sample && !cell->causal()) continue;
    const Anderson anderson{.scope = scope};
    const StopRule stop{.max_steps = 60, .rel_tol = 1e-3};
    const Solution ours = solve(f.f, at::zeros_like(z), anderson, stop);
    const Solution plain = solve(whole, at::zeros_like(z), anderson, stop);
    EXPECT_TRUE(at::equal(ours.z, plain.z));
    EXPECT_TRUE(at::equal(ours.report.trace, plain.report.trace));
    converged += ours.report.converged_share();
  }
  EXPECT_GT(converged, 0);
}

TEST_P(CellSuite, AnAdjointWithoutWhatIsDoneIsTheSameAdjoint) {
  if (!cell->injects()) GTEST_SKIP() << "no equilibrium";
  const Bound f = cell->bind(x, {});
  const Tensor at = z.detach().requires_grad_(true), g = at::randn_like(z);
  const Map::Linearised own = f.f.linearise(at);
  const Map::Linearised plain = Map([&](const Tensor& s) { return f.f(s); }).linearise(at);
  ASSERT_TRUE(at::equal(own.fz, plain.fz));
  const auto adjoint = [&](const Map::Linearised& how) {
    const Map::Series next = [&](const Tensor& u, const std::vector<int64_t>& done) {
      return 0.5 * how.transposed(u, done) + g;
    };
    return Map([next](const Tensor& u) { return next(u, {}); }, [next] { return next; });
  };
  double converged = 0;  // something is left out
  for (const Scope scope : {Scope::Sample, Scope::Position, Scope::Causal}) {
    if (scope != Scope::Sample && !cell->causal()) continue;
    const Anderson anderson{.scope = scope};
    const StopRule stop{.max_steps = 60, .rel_tol = 1e-3};
    const Solution ours = solve(adjoint(own), g, anderson, stop, Order::Backward);
    const Solution theirs = solve(adjoint(plain), g, anderson, stop, Order::Backward);
    EXPECT_TRUE(at::equal(ours.z, theirs.z));
    EXPECT_TRUE(at::equal(ours.report.trace, theirs.report.trace));
    converged += ours.report.converged_share();
  }
  EXPECT_GT(converged, 0);
}

TEST_P(CellSuite, LevelsShareWeightsAndInput) {
  const History one = after(3, 4);
  History other = one;
  for (Tensor* part : {&other.z, &other.k, &other.v}) {
    if (part->defined()) *part = at::randn_like(*part);
  }
  const Tensor rest_x = x.narrow(1, 3, 6), rest_z = z.narrow(1, 3, 6);
  const auto levels = cell->bind_levels(rest_x, {one, other});
  ASSERT_EQ(levels.size(), 2u);
  EXPECT_TRUE(at::equal(levels[0](rest_z), cell->bind(rest_x, one)(rest_z)));
  EXPECT_TRUE(at::equal(levels[1](rest_z), cell->bind(rest_x, other)(rest_z)));
  EXPECT_FALSE(at::equal(levels[0](rest_z), levels[1](rest_z)));
}

TEST_P(CellSuite, GradientsAreThoseOfFiniteDifferences) {
  const Tensor own_x = x.narrow(1, 2, 4).clone().requires_grad_(true);
  const Tensor own_z = z.narrow(1, 2, 4).clone().requires_grad_(true);
  const Tensor probe = at::randn_like(own_z);
  const auto value = [&] { return (cell->bind(own_x, {})(own_z) * probe).sum(); };
  std::vector<Tensor> inputs = cell->parameters();
  inputs.push_back(own_z);
  if (cell->injects()) inputs.push_back(own_x);
  const auto gradients = torch::autograd::grad({value()}, inputs, {}, false, false, false);
  at::AutoGradMode no_tape(false);
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Tensor direction = at::randn_like(inputs[i]);
    constexpr double kStep = 1e-5;
    inputs[i].add_(direction, kStep);
    const double up = value().item<double>();
    inputs[i].add_(direction, -2 * kStep);
    const double down = value().item<double>();
    inputs[i].add_(direction, kStep);
    const double expected = (up - down) / (2 * kStep);
    const double found = (gradients[i] * direction).sum().item<double>();
    EXPECT_NEAR(found, expected, 1e-6 * std::max(1.0, std::abs(expected))) << "input " << i;
  }
}

TEST_P(CellSuite, RefusesShapesThatDoNotFit) {
  EXPECT_THROW(cell->bind(at::zeros({B, T, cell->input_width() + 1}, at::kDouble), {}), Error);
  History other = after(3, 4);
  for (Tensor* part : {&other.z, &other.k, &other.v}) {
    if (part->defined()) *part = part->narrow(0, 0, 1);
  }
  EXPECT_THROW(cell->bind(x, other), Error);
}

TEST_P(CellSuite, InitialWeightsHaveTheirDeviation) {
  double squares = 0, count = 0;  // many small matrices, one estimate
  for (int draw = 0; draw < 20; ++draw) {
    cell->initialise(0.01);
    for (const auto& item : cell->named_parameters()) {
      const std::string name = item.key().substr(item.key().rfind('.') + 1);
      if (name == "bias" || name == "input_bias" || name == "hidden_bias") {
        EXPECT_EQ(item.value().abs().max().item<double>(), 0) << item.key();
      } else if (name != "g") {
        squares += item.value().square().sum().item<double>();
        count += double(item.value().numel());
      }
    }
  }
  EXPECT_NEAR(std::sqrt(squares / count), 0.01, 0.0005);
}

INSTANTIATE_TEST_SUITE_P(Cells, CellSuite, ::testing::ValuesIn(cases()),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(Cells, CoverEveryRegisteredCell) {
  std::set<std::string> seen;
  for (const CellCase& c : cases()) seen.insert(c.options.name());
  EXPECT_EQ(seen.size(), CellMaker::known().size());
}

}  // namespace
}  // namespace deq
