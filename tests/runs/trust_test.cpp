// The threshold says what the validation split says, and no more; and it is kept with what it
// belongs to.
#include "deq/runs/trust.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/base/scratch.h"

namespace deq {
namespace {

constexpr StopRule kStop{.max_steps = 30, .rel_tol = 1e-3};

/// `count` problems alike.
void add(std::vector<Judged>& judged, int64_t count, bool right, double residual) {
  const Judged one{right, residual, residual <= kStop.rel_tol, 7, {4}};
  judged.insert(judged.end(), size_t(count), one);
}

TEST(Trust, WhereAllThatConvergedIsRightItIsTheTolerance) {
  std::vector<Judged> judged;
  add(judged, 50, true, 1e-7);
  add(judged, 50, true, 4e-4);
  add(judged, 7, true, 2e-3);
  add(judged, 3, false, 0.3);
  const Trust trust = choose_trust(judged, kStop);
  EXPECT_EQ(trust.threshold, 1e-3);
  EXPECT_EQ(trust.right_within, 100);
  EXPECT_EQ(trust.wrong_within, 0);
  EXPECT_EQ(trust.right_beyond, 7);
  EXPECT_EQ(trust.wrong_beyond, 3);
}

TEST(Trust, ItEndsBeforeAWrongAnswer) {
  std::vector<Judged> judged;
  add(judged, 30, true, 1e-6);
  add(judged, 1, false, 1e-4);
  add(judged, 90, true, 5e-4);
  const Trust trust = choose_trust(judged, kStop);
  EXPECT_EQ(trust.threshold, 1e-6);
  EXPECT_EQ(trust.right_within, 30);
  EXPECT_EQ(trust.right_beyond, 90);
  EXPECT_EQ(trust.wrong_beyond, 1);
}

TEST(Trust, AFewRightAnswersAreNoThreshold) {
  for (const int64_t right : {19, 20}) {
    std::vector<Judged> judged;
    add(judged, right, true, 1e-6);
    add(judged, 1, false, 1e-5);
    add(judged, 500, true, 2e-2);
    EXPECT_EQ(choose_trust(judged, kStop).threshold.has_value(), right == 20);
  }
}

TEST(Trust, AThousandRightOnesOutweighAWrongOne) {
  for (const int64_t right : {998, 999}) {
    std::vector<Judged> judged;
    add(judged, 500, true, 1e-6);
    add(judged, 1, false, 1e-5);
    add(judged, right - 500, true, 1e-4);
    add(judged, 1, false, 5e-4);
    const Trust trust = choose_trust(judged, kStop);
    EXPECT_EQ(trust.threshold, right == 999 ? 1e-4 : 1e-6);
    EXPECT_EQ(trust.wrong_within, right == 999);
  }
}

TEST(Trust, WhatResidualsDoNotTellApartIsNotTrusted) {
  std::vector<Judged> judged;
  add(judged, 900, true, 0);
  add(judged, 100, false, 0);
  add(judged, 5, true, 1e-8);
  const Trust trust = choose_trust(judged, kStop);
  EXPECT_FALSE(trust.threshold);
  EXPECT_EQ(trust.right_beyond, 905);
  EXPECT_EQ(trust.right_within, 0);
  EXPECT_FALSE(trust.allows({.residual = 0, .converged = true}));
}

TEST(Trust, WhatDidNotConvergeIsNotTrusted) {
  std::vector<Judged> judged;
  add(judged, 100, true, 0.2);
  add(judged, 1, true, INFINITY);
  EXPECT_FALSE(choose_trust(judged, kStop).threshold);
  EXPECT_FALSE(choose_trust({}, kStop).threshold);
  Trust trust;
  trust.threshold = 1e-3;
  EXPECT_TRUE(trust.allows({.residual = 1e-3, .converged = true}));
  EXPECT_FALSE(trust.allows({.residual = 1e-3, .converged = false}));
  EXPECT_FALSE(trust.allows({.residual = 2e-3, .converged = true}));
  EXPECT_FALSE(trust.allows({.residual = std::nan(""), .converged = true}));
}

TEST(Trust, KnowsTheSizesThatWereTrainedOn) {
  Trust trust;
  trust.smallest = {2, 3};
  trust.largest = {5, 3};
  EXPECT_TRUE(trust.was_trained_on({2, 3}));
  EXPECT_TRUE(trust.was_trained_on({5, 3}));
  EXPECT_FALSE(trust.was_trained_on({6, 3}));
  EXPECT_FALSE(trust.was_trained_on({1, 3}));
  EXPECT_FALSE(trust.was_trained_on({5, 4}));
}

}  // namespace
}  // namespace deq
