// Problems of several extents, training splits drawn anew, and splits by name.
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "deq/data/random.h"
#include "deq/data/readers.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;

/// Grids that know their number and their places: problem s has s * 100 + 10 * row + column, and 77
/// where it does not reach.
Split grids(const std::vector<std::pair<int64_t, int64_t>>& extents) {
  const auto S = int64_t(extents.size());
  const at::Tensor corner = 10 * at::arange(5, at::kLong).view({1, 5, 1}) +
                            at::arange(5, at::kLong).view({1, 1, 5}) +
                            100 * at::arange(S, at::kLong).view({S, 1, 1});
  Split split{.tokens = at::full({S, 5, 5}, 77, at::kLong)};
  split.extents = at::empty({S, 2}, at::kLong);
  for (int64_t s = 0; s < S; ++s) {
    const auto [rows, columns] = extents[size_t(s)];
    split.tokens[s]
        .narrow(0, 0, rows)
        .narrow(1, 0, columns)
        .copy_(corner[s].narrow(0, 0, rows).narrow(1, 0, columns));
    split.extents[s][0] = rows;
    split.extents[s][1] = columns;
  }
  split.targets = split.tokens + 1;
  return split;
}

std::vector<std::pair<int64_t, int64_t>> some_extents(int64_t count, std::mt19937_64& random) {
  std::vector<std::pair<int64_t, int64_t>> extents;
  for (int64_t s = 0; s < count; ++s)
    extents.emplace_back(1 + int64_t(random() % 2), 4 + int64_t(random() % 2));
  return extents;
}

/// The number of each problem, checked to be whole and to have nothing behind it.
std::vector<int64_t> numbers_of(const Batch& batch,
                                const std::vector<std::pair<int64_t, int64_t>>& extents) {
  std::vector<int64_t> numbers;
  EXPECT_TRUE(at::equal(batch.tokens + 1, batch.targets));
  const int64_t H = batch.tokens.size(1), W = batch.tokens.size(2);
  for (int64_t b = 0; b < batch.tokens.size(0); ++b) {
    const int64_t number = batch.tokens[b][0][0].item<int64_t>() / 100;
    numbers.push_back(number);
    EXPECT_EQ(std::make_pair(H, W), extents[size_t(number)]);
    EXPECT_EQ(batch.tokens[b][H - 1][W - 1].item<int64_t>(), 100 * number + 10 * (H - 1) + W - 1);
  }
  return numbers;
}

TEST(SequenceStream, ProblemsOfOneExtentShareABatchAndAllAreRead) {
  std::mt19937_64 random(1);
  for (int trial = 0; trial < 40; ++trial) {
    const auto extents = some_extents(3 + int64_t(random() % 20), random);
    const auto count = int64_t(extents.size());
    const int64_t batch = 1 + int64_t(random() % uint64_t(count));
    SequenceStream stream(grids(extents), batch, trial);
    std::map<std::pair<int64_t, int64_t>, int64_t> sizes;
    for (const auto& extent : extents) ++sizes[extent];
    int64_t batches = 0;
    for (const auto& [extent, members] : sizes) batches += (members + batch - 1) / batch;
    ASSERT_EQ(stream.segments_per_epoch(), batches);
    std::set<std::vector<int64_t>> orders;
    for (int epoch = 0; epoch < 3; ++epoch) {
      std::vector<int64_t> order;
      for (int64_t i = 0; i < batches; ++i) {
        const Batch next = stream.next();
        EXPECT_LE(next.tokens.size(0), batch);
        for (const int64_t number : numbers_of(next, extents)) order.push_back(number);
      }
      orders.insert(order);
      std::sort(order.begin(), order.end());
      for (int64_t s = 0; s < count; ++s) ASSERT_EQ(order[size_t(s)], s);
    }
    if (count > 10) {
      EXPECT_EQ(orders.size(), 3u);
    }
    SequenceStream other(grids(extents), batch, trial);
    other.seek(2 * batches + 1);
    stream.seek(2 * batches + 1);
    EXPECT_TRUE(at::equal(other.next().tokens, stream.next().tokens));
  }
}

TEST(SequenceEvaluationStream, ProblemsOfSeveralExtentsStandInOrder) {
  std::mt19937_64 random(2);
  for (int trial = 0; trial < 40; ++trial) {
    const auto extents = some_extents(1 + int64_t(random() % 20), random);
    SequenceEvaluationStream stream(grids(extents), 1 + int64_t(random() % 6));
    int64_t expected = 0;
    while (const auto batch = stream.next()) {
      EXPECT_EQ(batch->first_lane, expected);
      for (const int64_t number : numbers_of(*batch, extents)) EXPECT_EQ(number, expected++);
    }
    EXPECT_EQ(expected, int64_t(extents.size()));
  }
}

TEST(SequenceStream, ExtentsThatDoNotFitAreErrors) {
  const auto says = [](const at::Tensor& extents) {
    Split split = grids({{1, 4}, {2, 5}});
    split.extents = extents;
    return error_of([&] { SequenceStream(split, 1, 1); });
  };
  EXPECT_SAYS(says(at::ones({2, 1}, at::kLong)),
              "extents of problems are (2, 1) Long; expected "
              "(2, 2) Long");
  EXPECT_SAYS(says(at::full({2, 2}, 6, at::kLong)), "are 6 to 6; expected 1 to 5");
  EXPECT_SAYS(says(at::zeros({2, 2}, at::kLong)), "are 0 to 0; expected 1 to 5");
}

/// Problems of two symbols, of the epoch that they name.
Split of_epoch(int64_t epoch) {
  const at::Tensor tokens = 100 * epoch + at::arange(6, at::kLong).unsqueeze(1).expand({6, 2});
  return {.tokens = tokens.contiguous(), .targets = tokens.contiguous()};
}

TEST(SequenceStream, DrawsItsProblemsAnewForEachEpoch) {
  int64_t drawn = 0;
  const DrawSplit draw = [&](int64_t epoch) {
    ++drawn;
    return of_epoch(epoch);
  };
  SequenceStream stream(of_epoch(0), 3, 1, draw);
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::set<int64_t> seen;
    for (int i = 0; i < 2; ++i) {
      const Batch batch = stream.next();
      for (int64_t b = 0; b < 3; ++b) seen.insert(batch.tokens[b][0].item<int64_t>());
    }
    EXPECT_EQ(seen.size(), 6u);
    EXPECT_EQ(*seen.begin(), 100 * epoch);
    EXPECT_EQ(*seen.rbegin(), 100 * epoch + 5);
  }
  EXPECT_EQ(drawn, 3);
  SequenceStream late(of_epoch(0), 3, 1, draw);
  late.seek(5);
  EXPECT_EQ(late.next().tokens.min().item<int64_t>() / 100, 2);
  SequenceStream short_one(of_epoch(0), 3, 1, [](int64_t) { return beginning(of_epoch(0), 2); });
  EXPECT_SAYS(error_of([&] { short_one.next(); }), "epoch 0 has 0 batches of problems; expected 2");
}

TEST(Corpus, HasItsSplitsByName) {
  Corpus corpus;
  corpus.train = of_epoch(0);
  corpus.valid = of_epoch(1);
  corpus.test = of_epoch(2);
  corpus.more = {{"hard", [] { return of_epoch(3); }}};
  const char* names[] = {"train", "valid", "test", "hard"};
  for (int64_t i = 0; i < 4; ++i) {
    EXPECT_EQ(corpus.splits()[size_t(i)], names[i]);
    EXPECT_EQ(corpus.split(names[i]).tokens[0][0].item<int64_t>(), 100 * i);
  }
  EXPECT_SAYS(error_of([&] { corpus.split("easy"); }),
              "unknown split 'easy'; known: train, valid, test, hard");
}

TEST(Readers, ReadAProblemsTrainingSplitAsItIsDrawn) {
  Corpus corpus;
  corpus.train = of_epoch(0);
  corpus.draw = of_epoch;
  TrainingReader reader(corpus, {.batch = 6});
  reader.next();
  EXPECT_EQ(reader.next().tokens.min().item<int64_t>(), 100);
}

}  // namespace
}  // namespace deq
