#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "deq/solvers/anderson.h"
#include "deq/solvers/broyden.h"
#include "deq/solvers/picard.h"
#include "deq/solvers/solvers.h"
#include "tests/allocations.h"
#include "tests/problems.h"

namespace deq {
namespace {

using at::Tensor;
using namespace testing;

TEST(SolverMemory, ALoopAllocatesNothingOnceItsMemoryIsFull) {
  const std::vector<Solver> solvers = {
      Picard{},
      Picard{.damping = 0.5},
      Anderson{.memory = 3},
      Anderson{.memory = 3, .mixing = 0.7},
      Anderson{.memory = 3, .scope = Scope::Causal},
      Broyden{.memory = 3},
      Broyden{.memory = 3, .scope = Scope::Position},
  };
  const Tensor z0 = randn({3, 5, 4}, at::kFloat, 1), x = randn({3, 5, 4}, at::kFloat, 2),
               y = at::full_like(x, 0.9);
  for (const Solver& solver : solvers) {
    TensorPool own;
    AllocationCount allocations;
    std::vector<int64_t> counts;
    // Different rows converge at different times, so that some are held and others go on.
    const auto from_pool = [&](const Tensor& z) {
      counts.push_back(allocations.count());
      Tensor fz = own.empty_like(z);
      at::mul_out(fz, z, x);
      return fz.tanh_().mul_(y).add_(x);
    };
    const Map f(from_pool, {});  // a plain callable's value that somebody holds would be copied
    solve(f, z0, solver, {.max_steps = 30, .rel_tol = 1e-6});
    SCOPED_TRACE(fmt::format("{}: {}", solver.name(), fmt::join(counts, " ")));
    ASSERT_GE(counts.size(), 9u);
    // The memory is full after four steps; a first row that is held costs one state more.
    EXPECT_LE(counts.back(), counts[6] + 1);
    EXPECT_GT(counts[1], counts[0]) << "the test counts nothing";
  }
}

}  // namespace
}  // namespace deq
