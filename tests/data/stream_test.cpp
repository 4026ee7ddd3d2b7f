#include "deq/data/stream.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <random>
#include <set>

#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;

class Random {
 public:
  explicit Random(uint64_t seed) : engine_(seed) {}
  int64_t operator()(int64_t low, int64_t high) {
    return std::uniform_int_distribution<int64_t>(low, high)(engine_);
  }

 private:
  std::mt19937_64 engine_;
};

/// Token i is i, so that a token says where it stood. Every other test has a tensor with a stride.
at::Tensor counting(int64_t count, bool strided) {
  if (!strided) return at::arange(count, at::kLong);
  return at::arange(2 * count, at::kLong).floor_divide(2).slice(0, 0, 2 * count, 2);
}

std::vector<std::vector<int64_t>> rows_of(const at::Tensor& matrix) {
  EXPECT_TRUE(matrix.is_contiguous());
  std::vector<std::vector<int64_t>> rows;
  for (int64_t row = 0; row < matrix.size(0); ++row) {
    const int64_t* first = matrix.data_ptr<int64_t>() + row * matrix.size(1);
    rows.emplace_back(first, first + matrix.size(1));
  }
  return rows;
}

void expect_shifted_by_one(const Batch& segment) {
  EXPECT_TRUE(at::equal(segment.tokens + 1, segment.targets));
}

TEST(SegmentStream, LanesAreContiguousOverEveryEpoch) {
  Random random(1);
  for (int trial = 0; trial < 300; ++trial) {
    const int64_t lanes = random(1, 9), length = random(1, 12), count = random(2, 400);
    if ((count - 1) / lanes < length) continue;
    SegmentStream stream(counting(count, trial % 2 == 1), lanes, length);
    const int64_t lane_length = (count - 1) / lanes;
    EXPECT_EQ(stream.segments_per_epoch(), lane_length / length);
    for (int64_t step = 0; step < 2 * stream.segments_per_epoch() + 1; ++step) {
      const int64_t index = step % stream.segments_per_epoch();
      EXPECT_EQ(stream.position(), step);
      EXPECT_EQ(stream.epoch(), step / stream.segments_per_epoch());
      const Batch segment = stream.next();
      ASSERT_EQ(segment.tokens.sizes(), (at::IntArrayRef{lanes, length}));
      EXPECT_EQ(segment.reset, index == 0);
      expect_shifted_by_one(segment);
      const auto rows = rows_of(segment.tokens);
      for (int64_t lane = 0; lane < lanes; ++lane) {
        for (int64_t t = 0; t < length; ++t) {
          ASSERT_EQ(rows[lane][t], lane * lane_length + index * length + t);
        }
      }
    }
  }
}

TEST(SegmentStream, SeekGoesOnExactly) {
  Random random(2);
  for (int trial = 0; trial < 100; ++trial) {
    const at::Tensor tokens = at::randint(50, {random(100, 300)}, at::kLong);
    const int64_t lanes = random(1, 5), length = random(1, 15);
    const Restarts restarts{trial % 2 == 0 ? 0 : 0.3, trial};
    SegmentStream first(tokens, lanes, length, restarts), second(tokens, lanes, length, restarts);
    for (int64_t step = random(0, 60); step > 0; --step) first.next();
    second.seek(first.position());
    for (int step = 0; step < 5; ++step) {
      const Batch a = first.next(), b = second.next();
      EXPECT_TRUE(at::equal(a.tokens, b.tokens));
      EXPECT_TRUE(at::equal(a.targets, b.targets));
      EXPECT_EQ(a.reset, b.reset);
      EXPECT_EQ(a.anew, b.anew);
    }
  }
}

// A lane that begins anew goes back by less than a segment; the others go on where they were.
TEST(SegmentStream, LanesBeginAnewAsOftenAsAskedFor) {
  constexpr int64_t kLanes = 7, kLength = 5;
  for (const double share : {0.0, 0.2, 1.0}) {
    SegmentStream stream(at::arange(7 * 5 * 60 + 1, at::kLong), kLanes, kLength, {share, 3});
    std::vector<int64_t> expected(kLanes);  // where a lane that goes on would stand
    std::map<int64_t, int64_t> steps_back;
    int64_t begun = 0, all = 0;
    for (int64_t step = 0; step < 600; ++step) {
      const Batch segment = stream.next();
      expect_shifted_by_one(segment);
      const std::set<int64_t> anew(segment.anew.begin(), segment.anew.end());
      ASSERT_EQ(anew.size(), segment.anew.size());
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        const int64_t first = segment.tokens[lane][0].item<int64_t>();
        const int64_t cut = lane * 300 + (step % 60) * kLength;
        if (segment.reset) {
          ASSERT_TRUE(anew.empty());
          ASSERT_EQ(first, cut);
        } else {
          ++all;
          if (anew.count(lane)) {
            ++begun;
            ++steps_back[cut - first];
          } else {
            ASSERT_EQ(first, expected[size_t(lane)]);
          }
        }
        expected[size_t(lane)] = first + kLength;
      }
    }
    EXPECT_NEAR(double(begun), share * double(all), 4 * std::sqrt(share * (1 - share) * all));
    for (int64_t back = 0; share > 0 && back < kLength; ++back)
      EXPECT_NEAR(steps_back[back], begun / 5.0, 5 * std::sqrt(begun / 5.0)) << back;
    EXPECT_EQ(steps_back.size(), share > 0 ? size_t(kLength) : 0u);
  }
}

TEST(SegmentStream, SegmentsOwnTheirMemory) {
  const at::Tensor tokens = at::arange(10, at::kLong);
  SegmentStream(tokens, 1, 9).next().tokens.zero_();
  EXPECT_EQ(tokens.sum().item<int64_t>(), 45);
}

TEST(SegmentStream, RefusesWhatItCannotCut) {
  const at::Tensor tokens = at::arange(10, at::kLong);
  EXPECT_NO_THROW(SegmentStream(tokens, 3, 3));
  EXPECT_SAYS(error_of([&] { SegmentStream(tokens, 3, 4); }),
              "10 tokens in 3 lanes are 3 targets each; a segment of 4 needs at least 13 tokens");
  EXPECT_SAYS(error_of([&] { SegmentStream(tokens.slice(0, 0, 0), 1, 1); }), "0 tokens");
  EXPECT_SAYS(error_of([&] { SegmentStream(tokens, 0, 1); }), "lanes = 0; expected >= 1");
  EXPECT_SAYS(error_of([&] { SegmentStream(tokens, 1, 0); }), "length = 0; expected >= 1");
  EXPECT_SAYS(error_of([&] { SegmentStream(tokens, INT64_MAX, INT64_MAX); }), "0 targets each");
  EXPECT_SAYS(error_of([&] { SegmentStream(tokens.view({2, 5}), 1, 1); }), "is (2, 5) Long");
  EXPECT_SAYS(error_of([&] { SegmentStream(tokens.to(at::kInt), 1, 1); }), "is (10) Int");
  EXPECT_SAYS(error_of([&] { SegmentStream({}, 1, 1); }), "is undefined");
  EXPECT_SAYS(error_of([&] {
                SegmentStream(tokens, 1, 1, {1.5, 1});
              }),
              "share of restarts = 1.5; expected 0 to 1");
  EXPECT_SAYS(error_of([&] { SegmentStream(tokens, 1, 1).seek(-1); }), "position = -1");
}

/// For each target: the lane it is in, and the first token of its segment.
using Contexts = std::map<int64_t, std::pair<int64_t, int64_t>>;

Contexts contexts_of(int64_t count, int64_t lanes, int64_t batch, int64_t length) {
  EvaluationStream stream(counting(count, batch % 2 == 1), lanes, batch, length);
  EXPECT_EQ(stream.targets(), count - 1);
  Contexts contexts;
  std::vector<int64_t> ends;  // last target of each row of the segment before
  int64_t first_lane = 0;
  while (const auto segment = stream.next()) {
    expect_shifted_by_one(*segment);
    EXPECT_LE(segment->tokens.size(0), batch);
    EXPECT_LE(segment->tokens.size(1), length);
    const auto rows = rows_of(segment->tokens);
    if (segment->reset) {
      EXPECT_EQ(segment->first_lane, first_lane + int64_t(ends.size()));
      first_lane = segment->first_lane;
    } else {
      EXPECT_EQ(segment->first_lane, first_lane);
      EXPECT_EQ(rows.size(), ends.size());
      for (size_t row = 0; row < rows.size(); ++row) EXPECT_EQ(rows[row].front(), ends[row]);
    }
    ends.clear();
    for (size_t row = 0; row < rows.size(); ++row) {
      ends.push_back(rows[row].back() + 1);
      for (const int64_t token : rows[row]) {
        const auto context = std::pair(first_lane + int64_t(row), rows[row].front());
        EXPECT_TRUE(contexts.emplace(token + 1, context).second) << "twice a target";
      }
    }
  }
  EXPECT_EQ(first_lane + int64_t(ends.size()), lanes);
  EXPECT_FALSE(stream.next().has_value());
  return contexts;
}

TEST(EvaluationStream, TargetsTileAndContextsDoNotDependOnTheBatch) {
  Random random(3);
  for (int trial = 0; trial < 300; ++trial) {
    const int64_t count = random(2, 200);
    const int64_t lanes = random(1, std::min<int64_t>(count - 1, 20)), length = random(1, 30);
    const Contexts alone = contexts_of(count, lanes, 1, length);
    ASSERT_EQ(int64_t(alone.size()), count - 1);
    ASSERT_EQ(alone.begin()->first, 1);
    ASSERT_EQ(alone.rbegin()->first, count - 1);
    ASSERT_EQ(contexts_of(count, lanes, random(2, 25), length), alone);
    ASSERT_EQ(contexts_of(count, lanes, lanes, length), alone);
    std::map<int64_t, int64_t> sizes;
    for (const auto& [target, context] : alone) ++sizes[context.first];
    ASSERT_EQ(int64_t(sizes.size()), lanes);
    for (const auto& [lane, size] : sizes) {
      EXPECT_GE(size, (count - 1) / lanes);
      EXPECT_LE(size, (count - 1 + lanes - 1) / lanes);
    }
    // Segments start every `length` tokens of a lane.
    std::map<int64_t, int64_t> begins;
    for (const auto& [target, context] : alone) begins.emplace(context.first, context.second);
    for (const auto& [target, context] : alone) {
      EXPECT_EQ((context.second - begins[context.first]) % length, 0);
      EXPECT_LE(target - context.second, length);
    }
  }
}

TEST(EvaluationStream, RefusesLanesWithoutATarget) {
  const at::Tensor tokens = at::arange(10, at::kLong);
  EXPECT_NO_THROW(EvaluationStream(tokens, 9, 1, 1));
  EXPECT_SAYS(error_of([&] { EvaluationStream(tokens, 10, 1, 1); }),
              "10 tokens in 10 lanes; expected at least 11");
  EXPECT_SAYS(error_of([&] { EvaluationStream(tokens, 1, 0, 1); }), "batch = 0; expected >= 1");
}

}  // namespace
}  // namespace deq
