// Weights in the kernels' layout are never those of a moment ago, whatever wrote the parameters.
#include "deq/cells/kept.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/optim/sgd.h>

#include <cstring>
#include <functional>

#include "deq/cells/cells.h"
#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;

struct Made {
  CellOptions options;
  std::shared_ptr<Cell> cell;
  Tensor x, z;

  explicit Made(const CellOptions& options) : options(options), cell(make_cell(options)) {
    cell->initialise(0.3);
    cell->eval();
    x = at::randn({2, 5, cell->input_width()});
    z = at::randn({2, 5, cell->state_width()});
  }
  static Tensor of(Cell& cell, const Tensor& x, const Tensor& z) {
    c10::NoGradGuard no_tape;
    return cell.bind(x, {})(z);
  }
  Tensor now() { return of(*cell, x, z); }
  /// What a new cell with the same weights gives.
  Tensor fresh() const {
    const auto other = make_cell(options);
    other->eval();
    c10::NoGradGuard no_tape;
    const auto from = cell->parameters(), to = other->parameters();
    for (size_t i = 0; i < from.size(); ++i) to[i].copy_(from[i]);
    return of(*other, x, z);
  }
};

std::vector<Made> cells() {
  std::vector<Made> made;
  for (const bool normed : {true, false}) {
    made.emplace_back(Transformer{.width = 8, .heads = 2, .inner = 12, .weight_norm = normed});
    made.emplace_back(TrellisNet{.hidden = 5, .output = 3, .input = 4, .weight_norm = normed});
  }
  return made;
}

using Write = std::function<void(Tensor&)>;
const std::vector<std::pair<const char*, Write>>& writes() {
  static const std::vector<std::pair<const char*, Write>> all{
      {"data().add_", [](Tensor& p) { p.data().add_(at::randn_like(p), 0.3); }},
      {"data().copy_", [](Tensor& p) { p.data().copy_(at::randn_like(p)); }},
      {"data().neg_", [](Tensor& p) { p.data().neg_(); }},
      {"one number through a pointer", [](Tensor& p) { p.data_ptr<float>()[0] += 0.5f; }},
      {"memcpy",
       [](Tensor& p) {
         const Tensor other = at::randn_like(p).contiguous();
         std::memcpy(p.data_ptr(), other.data_ptr(), p.nbytes());
       }},
      {"set_data", [](Tensor& p) { p.set_data(at::randn_like(p)); }},
      {"copy_ without a tape",
       [](Tensor& p) {
         c10::NoGradGuard no_tape;
         p.copy_(at::randn_like(p));
       }},
  };
  return all;
}

TEST(Kept, FollowsEveryWriteToEveryParameter) {
  at::manual_seed(3);
  for (Made& made : cells()) {
    for (auto& item : made.cell->named_parameters()) {
      for (const auto& [name, write] : writes()) {
        const Tensor before = made.now();
        EXPECT_TRUE(at::equal(made.now(), before));
        Tensor parameter = item.value();
        write(parameter);
        const Tensor after = made.now();
        EXPECT_TRUE(at::equal(after, made.fresh())) << item.key() << ": " << name;
      }
    }
  }
}

TEST(Kept, FollowsLibTorchsOwnSgd) {
  at::manual_seed(5);
  for (Made& made : cells()) {
    torch::optim::SGD descent(made.cell->parameters(), torch::optim::SGDOptions(0.5));
    for (int step = 0; step < 3; ++step) {
      const Tensor before = made.now();
      descent.zero_grad();
      made.cell->bind(made.x, {})(made.z).square().sum().backward();
      descent.step();
      const Tensor after = made.now();
      EXPECT_FALSE(at::equal(after, before));
      EXPECT_TRUE(at::equal(after, made.fresh()));
    }
  }
}

TEST(Kept, IsMadeOnceWhileNothingChanges) {
  at::manual_seed(7);
  const Tensor one = at::randn({30}), other = at::randn({4, 5});
  Kept<int> kept({one, other});
  int made = 0;
  const auto use = [&] {
    return kept.with([&] { return ++made; }, [](int which, uint64_t) { return which; });
  };
  EXPECT_EQ(use(), 1);
  EXPECT_EQ(use(), 1);
  one.data().add_(1);
  EXPECT_EQ(use(), 2);
  other.data_ptr<float>()[19] += 1;
  EXPECT_EQ(use(), 3);
  EXPECT_EQ(use(), 3);
}

// A text that goes on after its weights have changed would be of neither.
TEST(Kept, AHistoryOfOtherWeightsIsAnError) {
  at::manual_seed(9);
  for (Made& made : cells()) {
    c10::NoGradGuard no_tape;
    const Bound f = made.cell->bind(made.x, {});
    f(made.z);
    const History history = f.extend(made.z, 100);
    const Tensor expected = made.cell->bind(made.x, history)(made.z);
    const Tensor weight = made.cell->parameters().back();
    const Tensor before = weight.clone();
    weight.data().add_(1);
    EXPECT_SAYS(testing::error_of([&] { made.cell->bind(made.x, history); }), "other weights");
    weight.data().copy_(before);
    EXPECT_TRUE(at::equal(made.cell->bind(made.x, history)(made.z), expected));
  }
}

}  // namespace
}  // namespace deq
