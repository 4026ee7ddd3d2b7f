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
    // The memory is full after four steps; a first row that stops costs two states more, where it
    // is held and what it was, and two numbers for each row.
    EXPECT_LE(counts.back(), counts[6] + 4);
    EXPECT_GT(counts[1], counts[0]) << "the test counts nothing";
  }
}

TEST(SolverMemory, MatricesOfManyNarrowRowsAreNoLargerThanThePairsInThem) {
  // 20,000 rows of 4: with their full memories these would take 100 and 160 MB at once.
  const Tensor z0 = at::zeros({20000, 4}), x = randn({20000, 4}, at::kFloat, 3);
  for (const Solver& solver : {Solver(Broyden{.memory = 25}), Solver(Anderson{.memory = 32})}) {
    const AllocationCount allocations;
    int64_t calls = 0, second = 0;
    const Map f = [&](const Tensor& z) {
      if (++calls == 3) second = allocations.largest();
      return 0.5 * at::tanh(z) + x;
    };
    solve(f, z0, solver, {.max_steps = 40, .rel_tol = 0});
    EXPECT_LE(second, 20000 * 16 * 8);
    EXPECT_LE(allocations.largest(), 20000 * 10 * 10 * 8);
  }
}

}  // namespace
}  // namespace deq
