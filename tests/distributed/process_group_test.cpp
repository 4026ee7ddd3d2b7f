// What one process holds reaches the others as it is, and what fails on one fails on all.
#include "deq/distributed/process_group.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <chrono>
#include <mutex>

#include "deq/base/error.h"
#include "tests/distributed/threads.h"

namespace deq {
namespace {

using at::Tensor;
using testing::errors_of_group;
using testing::in_a_group;

TEST(ProcessGroup, AloneIsAGroupOfOne) {
  const auto group = alone();
  const Tensor own = at::arange(6, at::kDouble);
  EXPECT_TRUE(at::equal(group->gather(own), own.unsqueeze(0)));
  EXPECT_TRUE(at::equal(group->exchange(own.unsqueeze(0)), own.unsqueeze(0)));
  EXPECT_EQ(broadcast_text(*group, "text"), "text");
  EXPECT_EQ(gather_texts(*group, "text"), std::vector<std::string>{"text"});
  EXPECT_THROW(together(*group, [] { throw Error("own"); }), Error);
}

TEST(ProcessGroup, EachGetsWhatAllHoldByRank) {
  for (const int64_t count : {2, 3}) {
    in_a_group(count, [&](ProcessGroup& group) {
      EXPECT_EQ(group.size(), count);
      const Tensor own = at::full({2, 3}, group.rank(), at::kFloat);
      const Tensor all = group.gather(own);
      ASSERT_EQ(all.sizes(), at::IntArrayRef({count, 2, 3}));
      for (int64_t r = 0; r < count; ++r) EXPECT_TRUE(all[r].eq(r).all().item<bool>());
      EXPECT_EQ(group.gather(at::empty({0, 4})).sizes(), at::IntArrayRef({count, 0, 4}));

      const Tensor parts = at::arange(count, at::kLong).unsqueeze(1) + 10 * group.rank();
      const Tensor came = group.exchange(parts);  // of rank s what it had for this one
      for (int64_t s = 0; s < count; ++s)
        EXPECT_EQ(came[s][0].item<int64_t>(), 10 * s + group.rank());

      const Tensor truths = group.gather(at::full({1}, group.rank() == 1, at::kBool));
      EXPECT_EQ(truths.sum().item<int64_t>(), 1);
      EXPECT_TRUE(truths[1].item<bool>());
      EXPECT_EQ(group.gather(at::scalar_tensor(2.5, at::kHalf)).sizes(), at::IntArrayRef({count}));

      Tensor held = at::full({5}, group.rank() + 7, at::kDouble);
      group.broadcast(held);
      EXPECT_TRUE(held.eq(7).all().item<bool>());
    });
  }
}

TEST(ProcessGroup, TextsAndNamedTensorsOfAnyLength) {
  in_a_group(3, [](ProcessGroup& group) {
    const std::string own(size_t(group.rank() * 1000), char('a' + group.rank()));
    const std::vector<std::string> all = gather_texts(group, own);
    for (size_t r = 0; r < 3; ++r) EXPECT_EQ(all[r], std::string(r * 1000, char('a' + r)));
    EXPECT_EQ(broadcast_text(group, group.first() ? "of the first\nof two lines" : "other"),
              "of the first\nof two lines");
    EXPECT_EQ(broadcast_text(group, ""), "");

    std::map<std::string, Tensor> tensors;
    if (group.first())
      tensors = {{"a name", at::arange(12, at::kFloat).view({3, 4}).t()},
                 {"none", at::empty({0, 3}, at::kLong)},
                 {"number", at::scalar_tensor(2.5, at::kDouble)}};
    const auto received = broadcast_tensors(group, tensors);
    ASSERT_EQ(received.size(), 3u);
    EXPECT_TRUE(at::equal(received.at("a name"), at::arange(12, at::kFloat).view({3, 4}).t()));
    EXPECT_EQ(received.at("none").sizes(), at::IntArrayRef({0, 3}));
    EXPECT_EQ(received.at("none").scalar_type(), at::kLong);
    EXPECT_EQ(received.at("number").item<double>(), 2.5);
    EXPECT_EQ(received.at("number").dim(), 0);
  });
}

TEST(ProcessGroup, AnotherIsOfConnectionsOfItsOwn) {
  in_a_group(2, [](ProcessGroup& group) {
    const auto other = group.another();
    std::thread second([&] {
      for (int i = 0; i < 50; ++i)
        EXPECT_EQ(other->gather(at::full({1}, 100 * i + group.rank()))[1].item<double>(),
                  100 * i + 1);
    });
    for (int i = 0; i < 50; ++i)
      EXPECT_EQ(group.gather(at::full({1}, i + 10 * group.rank()))[1].item<double>(), i + 10);
    second.join();
  });
}

TEST(ProcessGroup, WhatFailsOnOneFailsOnAll) {
  const std::vector<std::string> errors = errors_of_group(3, [](ProcessGroup& group) {
    together(group, [] {});
    together(group, [&] { DEQ_CHECK(group.rank() != 1, "a disk that is full\nand more"); });
  });
  EXPECT_EQ(errors[0], "rank 1: a disk that is full");
  EXPECT_EQ(errors[1], "a disk that is full\nand more");
  EXPECT_EQ(errors[2], "rank 1: a disk that is full");
}

TEST(ProcessGroup, TheFirstDifferenceIsNamed) {
  const auto values = [](int64_t batch) {
    return std::map<std::string, std::string>{
        {"a", "1"}, {"batch", std::to_string(batch)}, {"z", "2"}};
  };
  in_a_group(2, [&](ProcessGroup& group) { check_alike(group, values(3)); });
  for (const std::string& error : errors_of_group(
           3, [&](ProcessGroup& group) { check_alike(group, values(group.rank() / 2)); }))
    EXPECT_EQ(error, "rank 2 has batch = 1, rank 0 batch = 0; expected the same of all processes");
  const auto more = [&](ProcessGroup& group) {
    auto own = values(3);
    if (group.first()) own["zz"] = "only here";
    check_alike(group, own);
  };
  EXPECT_EQ(errors_of_group(2, more)[1],
            "rank 1 has nothing more, rank 0 zz = only here; expected the same of all processes");
}

TEST(ProcessGroup, OneThatGoesIsNamedAtOnce) {
  const auto start = std::chrono::steady_clock::now();
  const std::vector<std::string> errors = errors_of_group(3, [](ProcessGroup& group) {
    group.doing("step 7");
    DEQ_CHECK(group.rank() != 1, "it goes");
    group.gather(at::zeros({1}));
  });
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  EXPECT_LT(took.count(), 5);
  EXPECT_EQ(errors[1], "it goes");
  // Whoever notices first goes, too, so that the other may miss it instead.
  EXPECT_PRED_FORMAT2(::testing::IsSubstring, " is gone, while rank 0 was at step 7", errors[0]);
  EXPECT_PRED_FORMAT2(::testing::IsSubstring, " is gone, while rank 2 was at step 7", errors[2]);
}

TEST(ProcessGroup, OneThatDoesNotAnswerEndsTheWaiting) {
  std::mutex mutex;
  const auto start = std::chrono::steady_clock::now();
  double waited = 0;
  const std::vector<std::string> errors = errors_of_group(
      2,
      [&](ProcessGroup& group) {
        group.doing("step 3");
        if (group.rank() == 1) {
          std::this_thread::sleep_for(std::chrono::seconds(4));
          throw Error("it comes too late");
        }
        const auto from = std::chrono::steady_clock::now();
        try {
          group.gather(at::zeros({1}));
        } catch (...) {
          const std::lock_guard lock(mutex);
          waited = std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count();
          throw;
        }
      },
      2);
  (void)start;
  EXPECT_GT(waited, 1.5);
  EXPECT_LT(waited, 3.5);
  EXPECT_PRED_FORMAT2(::testing::IsSubstring,
                      "rank 0 at step 3: no answer from another process within 2 s", errors[0]);
}

}  // namespace
}  // namespace deq
