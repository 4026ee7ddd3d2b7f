// What a gradient mode holds, in bytes that are allocated, as the number of steps grows.
#include <malloc.h>
#include <torch/csrc/autograd/custom_function.h>
#include <unistd.h>

#include <fstream>

#include "deq/gradients/reversible.h"
#include "tests/gradients/layer.h"

namespace deq {
namespace {

using namespace testing;

/// Bytes in use, of the heap and of mappings; 0 where the allocator does not tell (sanitizers).
int64_t bytes_in_use() {
  const struct mallinfo2 info = mallinfo2();
  return int64_t(info.uordblks + info.hblkhd);
}
int64_t resident_bytes() {
  std::ifstream statm("/proc/self/statm");
  int64_t total = 0, resident = 0;
  statm >> total >> resident;
  return resident * sysconf(_SC_PAGESIZE);
}

/// The most in use at any evaluation and any vector-Jacobian product of f.
int64_t peak = 0;
void sample() { peak = std::max(peak, bytes_in_use()); }

struct Sampled : torch::autograd::Function<Sampled> {
  static Tensor forward(torch::autograd::AutogradContext*, const Tensor& t) {
    sample();
    return t.view_as(t);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext*,
                                                 torch::autograd::variable_list g) {
    sample();
    return g;
  }
};

constexpr int64_t kState = 16 * 1024;  // numbers
constexpr double kStateBytes = 8.0 * kState;

/// States held at the peak of a forward and a backward pass, over those before it.
double peak_states(const EquilibriumOptions& options) {
  const Tensor w = at::full({kState}, 0.999, at::kDouble).requires_grad_(true);
  const Tensor z0 = at::zeros({1, kState}, at::kDouble);
  const Map f = [w](const Tensor& z) { return 0.5 * at::sin(Sampled::apply(z)) + w; };
  const int64_t before = bytes_in_use();
  peak = before;
  const Tensor z = equilibrium(f, z0, options);
  sample();
  gradients_of(z.sum(), {w});
  return double(peak - before) / kStateBytes;
}

StopRule exactly(int64_t steps) { return {.max_steps = steps, .rel_tol = 0}; }

TEST(Memory, OfModesWithASolverDoesNotGrowWithItsSteps) {
  if (bytes_in_use() == 0) GTEST_SKIP() << "the allocator does not tell";
  const auto states = [](const Gradient& mode, const Solver& solver, int64_t steps) {
    return peak_states({.solver = solver, .stop = exactly(steps), .gradient = mode});
  };
  for (const Solver& solver :
       {Solver(Anderson{.memory = 3}), Solver(Broyden{.memory = 3}), Solver(Picard{})}) {
    for (const Gradient& mode : {Gradient(Phantom{.steps = 2}), Gradient(OneStep{})}) {
      const double few = states(mode, solver, 8);
      EXPECT_NEAR(states(mode, solver, 80), few, 3);
      EXPECT_NEAR(states(mode, solver, 500), few, 3);
    }
    const auto implicit = [&](int64_t steps) {
      return states(Implicit{solver, exactly(steps)}, solver, steps);
    };
    const double few = implicit(8);
    EXPECT_NEAR(implicit(80), few, 3);
    EXPECT_NEAR(implicit(500), few, 3);
    EXPECT_LT(few, 30);
  }
}

TEST(Memory, OfUnrolledIsLinearAndOfCheckpointedASquareRoot) {
  if (bytes_in_use() == 0) GTEST_SKIP() << "the allocator does not tell";
  const auto unrolled = [](int64_t steps) { return peak_states({.gradient = Unrolled{steps}}); };
  const auto checkpointed = [](int64_t steps) {
    return peak_states({.gradient = Checkpointed{steps}});
  };
  const double u = unrolled(64), c = checkpointed(64);
  EXPECT_NEAR(unrolled(256) / u, 4, 0.5);
  EXPECT_NEAR(checkpointed(256) / c, 2, 0.5);
  EXPECT_LT(c, 0.6 * u);
  EXPECT_LT(checkpointed(256), 0.3 * unrolled(256));
}

TEST(Memory, OfReversibleGrowsByTwoStatesInEighteenSteps) {
  if (bytes_in_use() == 0) GTEST_SKIP() << "the allocator does not tell";
  const auto states = [](int64_t steps) {
    return peak_states({.gradient = ReversibleUnrolled{steps}});
  };
  const double few = states(3);
  EXPECT_LT(few, 20);
  EXPECT_NEAR(states(18), few, 0.5);
  EXPECT_NEAR(states(18 * 11), few + 20, 1);
}

TEST(Memory, ALossThatIsKeptAfterBackwardKeepsNoStates) {
  if (bytes_in_use() == 0) GTEST_SKIP() << "the allocator does not tell";
  std::vector<Gradient> modes = every_gradient();
  modes.emplace_back(Implicit{.shine = 8});
  for (Gradient& mode : modes) {
    set_where_known(mode, "steps", 5);  // each is some nodes of a kept graph
    const Tensor w = at::full({kState}, 0.9, at::kDouble).requires_grad_(true);
    const Map f = [w](const Tensor& z) { return 0.5 * at::sin(z) + w; };
    const Tensor z0 = at::zeros({1, kState}, at::kDouble);
    std::vector<Tensor> kept;
    const auto step = [&] {
      const Tensor loss = equilibrium(f, z0, {.gradient = mode}).z.sum();
      loss.backward();
      kept.push_back(loss);
    };
    step();
    const int64_t before = bytes_in_use();
    for (int k = 0; k < 10; ++k) step();
    EXPECT_LT(double(bytes_in_use() - before) / kStateBytes, 1) << name_of(mode);
  }
}

TEST(Memory, NothingIsLostInAThousandSteps) {
  if (bytes_in_use() == 0) GTEST_SKIP() << "a sanitizer keeps what was freed, and looks for leaks";
  const TanhLayer layer;
  const auto train = [&](const Gradient& mode, int count) {
    for (int i = 0; i < count; ++i) {
      const EquilibriumOptions options = {.stop = {.max_steps = 6}, .gradient = mode};
      loss_of(equilibrium(layer.map(), layer.z0(), options)).backward();
    }
  };
  for (Gradient& mode : every_gradient()) {
    set_where_known(mode, "steps", 5);
    set_where_known(mode, "max_steps", 5);
    train(mode, 50);  // pools and caches
    const int64_t used = bytes_in_use(), resident = resident_bytes();
    train(mode, 1000);
    EXPECT_LT(bytes_in_use() - used, 200'000) << name_of(mode);
    EXPECT_LT(resident_bytes() - resident, 4'000'000) << name_of(mode);
  }
}

}  // namespace
}  // namespace deq
