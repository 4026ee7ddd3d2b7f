// The sum of shards has the bits of adding them one after the other, whoever computed them.
#include "deq/distributed/gradient_sum.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/types.h>

#include <chrono>

#include "deq/base/error.h"
#include "tests/distributed/threads.h"

namespace deq {
namespace {

using at::Tensor;
using testing::in_a_group;

constexpr int64_t kShards = 12;
const std::vector<int64_t> kSizes = {1, 700, 33, 5};  // the last has no gradient in any shard

/// Of widely different sizes, so that the order of a sum shows in its bits.
Tensor gradient_of(int64_t shard, int64_t parameter, int64_t step) {
  const int64_t n = kSizes[size_t(parameter)];
  const Tensor i = at::arange(n, at::kDouble) + 1000 * parameter + 77 * step;
  return (at::sin(i * (shard + 1.7)) * at::exp(3 * at::cos(i * 0.3 + shard))).to(at::kFloat);
}

/// Parameter 2 has one in odd shards alone.
bool has_one(int64_t shard, int64_t parameter) {
  return parameter != 3 && (parameter != 2 || shard % 2 == 1);
}

std::vector<Tensor> sums_in_order(int64_t step) {
  std::vector<Tensor> sums;
  for (int64_t p = 0; p < 4; ++p) {
    Tensor sum;
    for (int64_t shard = 0; shard < kShards; ++shard) {
      if (!has_one(shard, p)) continue;
      const Tensor g = gradient_of(shard, p, step);
      sum = sum.defined() ? sum + g : g;
    }
    sums.push_back(sum);
  }
  return sums;
}

/// Two passes of a shard, of which the second has all but a constant.
void passes_of(GradientSum& sum, const std::vector<Tensor>& parameters, int64_t shard,
               int64_t step) {
  sum.begin();
  for (const bool last : {false, true}) {
    if (last) sum.last_pass();
    Tensor loss;
    for (int64_t p = 0; p < 4; ++p) {
      if (!has_one(shard, p)) continue;
      const Tensor g = gradient_of(shard, p, step);
      const Tensor part = last ? g - g.round() : g.round();  // whose sum is exact
      const Tensor own = (parameters[size_t(p)] * part).sum();
      loss = loss.defined() ? loss + own : own;
    }
    loss.backward();
  }
  sum.mark();
  sum.end();
}

void expect_sums(ProcessGroup& group, int64_t bucket) {
  std::vector<Tensor> parameters;
  for (const int64_t n : kSizes) parameters.push_back(torch::zeros({n}).requires_grad_(true));
  GradientSum sum(parameters, kShards, group.several() ? group.another() : alone(), bucket);
  const int64_t each = kShards / group.size();
  for (int64_t step = 0; step < 4; ++step) {
    sum.begin_step(step % 2);
    for (int64_t k = 0; k < each; ++k) passes_of(sum, parameters, group.rank() * each + k, step);
    sum.finish();
    const std::vector<Tensor> expected = sums_in_order(step);
    for (size_t p = 0; p < 4; ++p) {
      ASSERT_EQ(parameters[p].grad().defined(), expected[p].defined()) << p;
      if (expected[p].defined()) {
        EXPECT_TRUE(at::equal(parameters[p].grad(), expected[p])) << p << " step " << step;
      }
    }
  }
}

TEST(GradientSum, IsTheSumInTheOrderOfShardsForAnyNumberOfProcesses) {
  for (const int64_t bucket : {1, 100, 1 << 20}) {
    expect_sums(*alone(), bucket);
    for (const int64_t count : {2, 3, 4, 6})
      in_a_group(count, [&](ProcessGroup& group) { expect_sums(group, bucket); });
  }
}

TEST(GradientSum, AnotherOrderWouldShow) {
  const std::vector<Tensor> forward = sums_in_order(0);
  Tensor backward = gradient_of(kShards - 1, 1, 0);
  for (int64_t shard = kShards - 2; shard >= 0; --shard)
    backward = backward + gradient_of(shard, 1, 0);
  EXPECT_FALSE(at::equal(forward[1], backward));
}

TEST(GradientSum, OfDoubles) {
  in_a_group(2, [](ProcessGroup& group) {
    const Tensor w = torch::zeros({3}, at::kDouble).requires_grad_(true);
    GradientSum sum({w}, 2, group.another());
    sum.begin_step(0);
    sum.begin();
    sum.last_pass();
    (w * (1.0 / 3 + double(group.rank()))).sum().backward();
    sum.end();
    sum.finish();
    EXPECT_TRUE(at::equal(w.grad(), at::full({3}, 1.0 / 3 + (1.0 / 3 + 1), at::kDouble)));
  });
}

TEST(GradientSum, AnErrorUnderwayWaitsForNobody) {
  const auto start = std::chrono::steady_clock::now();
  const auto errors = testing::errors_of_group(2, [](ProcessGroup& group) {
    const Tensor w = torch::zeros({3}).requires_grad_(true);
    GradientSum sum({w}, 2, group.another());
    if (group.rank() == 1) {  // which never sends its shard
      group.gather(at::zeros({1}));
      return;
    }
    sum.begin_step(0);
    sum.begin();
    sum.last_pass();
    w.sum().backward();
    sum.end();
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    throw Error("what went wrong");
  });
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 10);
  EXPECT_EQ(errors[0], "what went wrong");
  EXPECT_EQ(errors[1].rfind("rank 0 is gone, while rank 1 was at start", 0), 0u) << errors[1];
}

}  // namespace
}  // namespace deq
