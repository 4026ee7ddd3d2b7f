// The cell that descends an energy, and each term that it may descend.
#include "deq/cells/energy.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/cells/cells.h"
#include "deq/cells/energy_attention.h"
#include "deq/cells/energy_convolution.h"
#include "deq/cells/energy_groups.h"
#include "deq/cells/energy_patterns.h"
#include "tests/base/scratch.h"
#include "tests/problems.h"

namespace deq {
namespace {

using at::Tensor;
using namespace testing;

struct TermCase {
  const char* name;
  EnergyTermOptions of;
};

std::vector<TermCase> terms() {
  return {{"conv", EnergyConvolution{.width = 4, .inner = 6}},
          {"conv_tanh",
           EnergyConvolution{.width = 4, .inner = 6, .kernel = 5, .activation = Activation::Tanh}},
          {"groups", EnergyGroups{.width = 3, .inner = 5, .groups = "all"}},
          {"attention", EnergyAttention{.width = 8, .heads = 2, .inner = 6}},
          {"hopfield", EnergyPatterns{.width = 5, .patterns = 7, .beta = 1.5}}};
}

/// A sequence, and a grid.
const std::vector<std::vector<int64_t>> kPlaces = {{7}, {4, 4}};

struct Made {
  std::shared_ptr<Cell> cell;
  Tensor x, z;
  Map f;
};

Made make(const TermCase& term, const std::vector<int64_t>& places, int64_t batch,
          at::ScalarType type = at::kDouble, double spread = 1) {
  at::manual_seed(5);
  Made made;
  made.cell = make_cell(
      Energy{
          .of = term.of, .step = 0.2, .step_spread = spread, .dimensions = int64_t(places.size())},
      {.symbols = 3});
  made.cell->initialise(0.5);
  made.cell->to(type);
  made.cell->eval();
  std::vector<int64_t> shape = places;
  shape.insert(shape.begin(), batch);
  shape.push_back(made.cell->state_width());
  made.x = at::randn(shape, type);
  made.z = at::randn(shape, type);
  made.f = made.cell->bind(made.x, {}).f;
  return made;
}

TEST(EnergyCell, StepsDownTheGradientOfItsEnergy) {
  const at::NoGradGuard no_tape;
  for (const TermCase& term : terms()) {
    for (const auto& places : kPlaces) {
      const Made made = make(term, places, 2);
      const Tensor step = (made.z - made.f(made.z)) / 0.2;
      const Tensor direction = at::randn_like(made.z);
      const auto energy = made.f.energy();
      const Tensor up = energy(made.z + 1e-5 * direction), down = energy(made.z - 1e-5 * direction);
      EXPECT_LT(relative_error((step * direction).flatten(1).sum(1), (up - down) / 2e-5), 1e-7)
          << term.name;
      // As methods have a state.
      EXPECT_TRUE(at::equal(energy(made.z.flatten(1)), energy(made.z))) << term.name;
    }
  }
}

TEST(EnergyCell, ItsJacobianIsSymmetric) {
  for (const TermCase& term : terms()) {
    const Made made = make(term, {7}, 2);
    const Tensor z = made.z.clone().requires_grad_(true), fz = made.f(z);
    const Tensor u = at::randn_like(z), v = at::randn_like(z);
    const auto product = [&](const Tensor& w) {
      return torch::autograd::grad({fz}, {z}, {w}, true)[0];
    };
    EXPECT_LT(relative_error((product(u) * v).sum(), (product(v) * u).sum()), 1e-10) << term.name;
  }
}

TEST(EnergyCell, ASampleHasTheBitsThatItHasAlone) {
  const at::NoGradGuard no_tape;
  for (const TermCase& term : terms()) {
    for (const auto& places : kPlaces) {
      const Made many = make(term, places, 64, at::kFloat);
      const Tensor together = many.f(many.z), energies = many.f.energy()(many.z);
      for (const int64_t b : {0, 17, 63}) {
        const Map alone = many.cell->bind(many.x.narrow(0, b, 1).contiguous(), {}).f;
        const Tensor z = many.z.narrow(0, b, 1).contiguous();
        EXPECT_TRUE(at::equal(alone(z)[0], together[b])) << term.name << ", sample " << b;
        EXPECT_TRUE(at::equal(alone.energy()(z)[0], energies[b])) << term.name;
      }
    }
  }
}

TEST(EnergyCell, AConvolutionIsLibTorchs) {
  const Made made =
      make({"conv", EnergyConvolution{.width = 4, .inner = 6, .kernel = 3}}, {5, 4}, 2);
  const auto named = made.cell->named_parameters();
  const auto weight = [&](const char* name) {  // taps by row and column, then features
    return named[name].detach().view({6, 3, 3, 4}).permute({0, 3, 1, 2});
  };
  const auto convolved = [&](const Tensor& y, const char* name) {
    return at::conv2d(y.permute({0, 3, 1, 2}), weight(name), {}, 1, 1).permute({0, 2, 3, 1});
  };
  const auto s = [](const Tensor& y) { return at::softplus(y); };
  const Tensor h = s(convolved(made.z, "of.state.weight") + convolved(made.x, "of.inject.weight") +
                     named["of.inject.bias"]);
  const Tensor units = s(at::linear(h, named["of.mix.weight"], named["of.mix.bias"]));
  const Tensor expected = (0.5 * made.z.square() + units * named["of.weight"]).flatten(1).sum(1);
  EXPECT_LT(relative_error(made.f.energy()(made.z), expected), 1e-12);
}

TEST(EnergyCell, ExchangedSymbolsAndPlacesHaveTheSameEnergy) {
  TermCase term{"groups", EnergyGroups{.width = 3, .inner = 5, .groups = "row+column,box"}};
  const Made made = make(term, {4, 4}, 2);
  const Tensor before = made.f.energy()(made.z);
  const auto exchanged = [](const Tensor& t) {  // symbols, two rows of a band, and transposed
    const Tensor rows = at::tensor({1, 0, 2, 3}, at::kLong);
    return t.view({2, 4, 4, 3, 3})
        .flip(3)
        .index_select(1, rows)
        .transpose(1, 2)
        .reshape({2, 4, 4, 9})
        .contiguous();
  };
  const Map f = made.cell->bind(exchanged(made.x), {}).f;
  EXPECT_LT(relative_error(f.energy()(exchanged(made.z)), before), 1e-12);
  const Tensor moved = exchanged(made.z);
  EXPECT_LT(relative_error(f(moved), exchanged(made.f(made.z))), 1e-12);
}

TEST(EnergyCell, HopfieldsStepOfOneIsAttentionOverItsPatterns) {
  const TermCase term{"hopfield", EnergyPatterns{.width = 5, .patterns = 7, .beta = 1.5}};
  Made made = make(term, {6}, 2);
  const Tensor p = made.cell->named_parameters()["of.patterns.weight"];
  const Tensor field = at::linear(made.x, made.cell->named_parameters()["of.inject.weight"]);
  const Tensor expected = at::matmul(at::softmax(1.5 * at::matmul(made.z, p.t()), -1), p) + field;
  EXPECT_LT(relative_error(made.z + (made.f(made.z) - made.z) / 0.2, expected), 1e-12);
}

TEST(EnergyCell, StepsAreDrawnForEachSampleInTrainingOnly) {
  const TermCase term = terms().front();
  const double spread = 3;
  const Made made = make(term, {7}, 50, at::kDouble, spread);
  const auto steps = [&] {  // eta of each sample, by how far it goes
    const Map f = made.cell->bind(made.x, {}).f;
    const Tensor moved = made.z - f(made.z).detach(), plain = made.z - made.f(made.z).detach();
    return at::Tensor(0.2 * (moved / plain).flatten(1).mean(1));
  };
  EXPECT_LT((steps() - 0.2).abs().max().item<double>(), 1e-9) << "evaluation";
  made.cell->train();
  const Tensor drawn = steps();
  EXPECT_GT(drawn.min().item<double>(), 0.2 / spread - 1e-9);
  EXPECT_LT(drawn.max().item<double>(), 0.2 * spread + 1e-9);
  EXPECT_LT(drawn.min().item<double>(), 0.2 / spread * 1.3);
  EXPECT_GT(drawn.max().item<double>(), 0.2 * spread / 1.3);
  EXPECT_NEAR((drawn / 0.2).log().mean().item<double>(), 0, 0.35);
  EXPECT_FALSE(at::equal(steps(), drawn)) << "anew for each solve";
  const at::NoGradGuard no_tape;
  EXPECT_LT((steps() - 0.2).abs().max().item<double>(), 1e-9) << "without a tape";
}

TEST(EnergyCell, TellsWhatIsWrong) {
  const auto made = [](EnergyTermOptions of) {
    return error_of([&] { make_cell(Energy{.of = std::move(of)}, {.symbols = 2}); });
  };
  EXPECT_SAYS(made(EnergyConvolution{.activation = Activation::Relu}), "cell-of-activation = relu");
  EXPECT_SAYS(made(EnergyGroups{.activation = Activation::Relu}), "second derivative");
  EXPECT_SAYS(made(EnergyAttention{.activation = Activation::Relu}), "tanh, sigmoid or softplus");
  EXPECT_SAYS(made(EnergyConvolution{.kernel = 4}), "cell-of-kernel = 4");
  EXPECT_SAYS(made(EnergyAttention{.width = 8, .heads = 3}), "cell-of-heads = 3");
  EXPECT_SAYS(error_of([] { make_cell(Energy{.step = 0}); }), "step = 0");
  EXPECT_SAYS(error_of([] { make_cell(Energy{.of = EnergyGroups{}}); }), "0 symbols");
  const Made cell = make(terms().front(), {7}, 2);
  EXPECT_SAYS(error_of([&] {
                cell.cell->bind(at::zeros({2, 7, 7, 4}, at::kDouble), {});
              }),
              "cell-dimensions = 1");
}

TEST(Softplus, HasItsSlopeAtZeroToo) {
  const Tensor y = at::zeros({3}, at::kDouble).requires_grad_(true);
  const Tensor first =
      torch::autograd::grad({activated(Activation::Softplus, y).sum()}, {y}, {}, true, true)[0];
  EXPECT_LT((first - 0.5).abs().max().item<double>(), 1e-15);
  const Tensor second = torch::autograd::grad({first.sum()}, {y})[0];
  EXPECT_LT((second - 0.25).abs().max().item<double>(), 1e-15);
}

}  // namespace
}  // namespace deq
