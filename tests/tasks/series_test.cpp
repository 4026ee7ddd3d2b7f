// Series of real values: windows hold what stands in the file, scaled by its first part alone, and
// nothing of what they ask for.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <set>

#include "deq/base/levels.h"
#include "deq/tasks/tasks.h"
#include "deq/tasks/time_series.h"
#include "tests/tasks/series_file.h"

namespace deq {
namespace {

using at::Tensor;
using testing::csv;
using testing::error_of;
using testing::kRows;
using testing::kTiny;
using testing::missing_at;
using testing::scale_of;
using testing::SeriesTest;
using testing::small;
using testing::value_at;

TEST(Levels, ValuesAreIdsAndBack) {
  for (const double value :
       {0.0, 1.0, -1.0, 0.1, -1e-9, 12345.678, -kLargestValue, kLargestValue}) {
    const int64_t id = level_of(value);
    EXPECT_GE(id, kMarks);
    EXPECT_LT(id, kLevels);
    EXPECT_NEAR(values_of(at::tensor({id})).item<double>(), value, 0.51 * kLevelStep);
  }
  EXPECT_EQ(level_of(NAN), kMissing);
  EXPECT_EQ(level_of(1) - level_of(0), int64_t{1} << 32);
  EXPECT_SAYS(error_of([] { level_of(1e9); }), "value = 1000000000");
  EXPECT_TRUE(at::equal(values_of(at::tensor({kMissing, kAsked, int64_t{-1}})),
                        at::zeros({3}, at::kDouble)));
  EXPECT_TRUE(at::equal(known_values(at::tensor({kMissing, kAsked, kZeroLevel})).to(at::kLong),
                        at::tensor({0, 0, 1}, at::kLong)));
}

TEST_F(SeriesTest, IsScaledByItsFirstPartAlone) {
  const Corpus corpus = load();
  const auto columns = series_columns(corpus.vocabulary);
  ASSERT_EQ(columns.size(), 2u);
  for (int64_t c = 0; c < 2; ++c) {
    const SeriesColumn own = scale_of(c, 140), &found = columns[size_t(c)];
    EXPECT_EQ(found.name, own.name);
    EXPECT_NEAR(found.mean, own.mean, 1e-12 * std::abs(own.mean));
    EXPECT_NEAR(found.std, own.std, 1e-12 * own.std);
  }
  write(csv(kRows, [](int64_t t, int64_t c) { return value_at(t, c) * (t < 140 ? 1 : 50); }));
  EXPECT_EQ(load().vocabulary.fingerprint(), corpus.vocabulary.fingerprint())
      << "what is held out has no part in it";
  write(csv(kRows, [](int64_t t, int64_t c) { return value_at(t, c) * (t == 139 ? 2 : 1); }));
  EXPECT_NE(load().vocabulary.fingerprint(), corpus.vocabulary.fingerprint());
}

/// What a window must be, from the file's values alone.
void expect_window(const Split& split, int64_t s, int64_t first, const TimeSeries& task) {
  for (int64_t c = 0; c < 2; ++c) {
    const SeriesColumn scale = scale_of(c, 140);
    double sum = 0, count = 0, last = 0;
    for (int64_t t = first - task.context; t < first; ++t) {
      if (missing_at(t, c)) continue;
      last = (value_at(t, c) - scale.mean) / scale.std;
      sum += last;
      ++count;
    }
    const double centre = task.centre == Centre::Mean   ? sum / count
                          : task.centre == Centre::Last ? last
                                                        : 0;
    for (int64_t i = 0; i < task.context + task.horizon; ++i) {
      const int64_t t = first - task.context + i;
      const int64_t token = split.tokens[s][i][c].item<int64_t>(),
                    target = split.targets[s][i][c].item<int64_t>();
      const double value = (value_at(t, c) - scale.mean) / scale.std - centre;
      const bool asked = i >= task.context, missing = missing_at(t, c);
      ASSERT_EQ(token == kAsked, asked);
      if (!asked) {
        ASSERT_EQ(target, -1);
        ASSERT_EQ(token == kMissing, missing);
      }
      ASSERT_EQ(target == -1, !asked || missing) << t;
      if (!missing) {
        ASSERT_NEAR(values_of(at::tensor({asked ? target : token})).item<double>(), value, kTiny);
      }
    }
  }
}

TEST_F(SeriesTest, WindowsHoldWhatStandsThere) {
  for (const Centre centre : {Centre::Mean, Centre::Last, Centre::None}) {
    TimeSeries task = small();
    task.centre = centre;
    const Corpus corpus = load(task);
    ASSERT_EQ(corpus.train.tokens.sizes(), (at::IntArrayRef{140 - 15, 16, 2})) << "each window";
    ASSERT_EQ(corpus.valid.tokens.size(0), 5) << "20 rows, 4 at a time";
    ASSERT_EQ(corpus.test.tokens.size(0), 10);
    EXPECT_EQ(corpus.valid.answer, 0);
    EXPECT_FALSE(corpus.answers);
    for (const int64_t s : {0, 1, 50, 124}) expect_window(corpus.train, s, 12 + s, task);
    for (int64_t s = 0; s < 5; ++s) expect_window(corpus.valid, s, 140 + 4 * s, task);
    for (int64_t s = 0; s < 10; ++s) expect_window(corpus.test, s, 160 + 4 * s, task);
  }
}

TEST_F(SeriesTest, StrideAndSharesAndWindowsAreAsked) {
  TimeSeries task = small();
  task.stride = 1;
  EXPECT_EQ(load(task).valid.tokens.size(0), 17);
  task.shares = {.valid = 0.2, .test = 0.1};
  EXPECT_EQ(load(task).valid.tokens.size(0), 37);
  EXPECT_EQ(load(task).test.tokens.size(0), 17);
  task.windows = 30;
  const Corpus corpus = load(task);
  ASSERT_TRUE(corpus.draw);
  ASSERT_EQ(corpus.train.tokens.size(0), 30);
  EXPECT_TRUE(at::equal(corpus.draw(0).tokens, corpus.train.tokens));
  EXPECT_FALSE(at::equal(corpus.draw(1).tokens, corpus.train.tokens));
  EXPECT_TRUE(at::equal(corpus.draw(1).tokens, load(task).draw(1).tokens)) << "the same again";
  task.seed = 2;
  EXPECT_FALSE(at::equal(load(task).train.tokens, corpus.train.tokens));
  task.windows = 0;
  EXPECT_EQ(load(task).train.tokens.size(0), 125);
  EXPECT_FALSE(load(task).draw);
}

TEST_F(SeriesTest, NoWindowSeesWhatIsAskedOfIt) {
  for (const Centre centre : {Centre::Mean, Centre::Last, Centre::None}) {
    TimeSeries task = small();
    task.centre = centre;
    const Corpus before = load(task);
    // Everything that the first test window is asked, and all behind it.
    write(csv(kRows, [](int64_t t, int64_t c) { return value_at(t, c) + (t >= 160 ? 77 : 0); }));
    const Corpus after = load(task);
    EXPECT_TRUE(at::equal(before.test.tokens[0], after.test.tokens[0]));
    EXPECT_FALSE(at::equal(before.test.targets[0], after.test.targets[0]));
    EXPECT_FALSE(at::equal(before.test.tokens[1], after.test.tokens[1])) << "which are known later";
    EXPECT_TRUE(at::equal(before.valid.tokens, after.valid.tokens));
    EXPECT_TRUE(at::equal(before.train.targets, after.train.targets));
    write(csv(kRows));
  }
}

TEST_F(SeriesTest, ColumnsAndScaleAreARunsOwn) {
  TimeSeries task = small();
  task.columns = "rate";
  const Corpus one = load(task);
  ASSERT_EQ(one.vocabulary.size(), kMarks + 1);
  EXPECT_EQ(one.train.tokens.size(2), 1);
  EXPECT_TRUE(at::equal(one.test.targets.select(2, 0), load().test.targets.select(2, 1)));
  // Another file, in the run's scale.
  write(csv(kRows, [](int64_t t, int64_t c) { return 3 * value_at(t, c); }));
  const Corpus other = task.load(scratch / "series.csv", one.vocabulary);
  EXPECT_EQ(other.vocabulary.fingerprint(), one.vocabulary.fingerprint());
  const Tensor scored = one.test.targets.ge(0);
  EXPECT_TRUE(at::allclose(values_of(other.test.targets.masked_select(scored)),
                           3 * values_of(one.test.targets.masked_select(scored)), 0, 1e-8));
  const auto columns = series_columns(Vocabulary::parse(one.vocabulary.serialize(), "vocab.txt"));
  EXPECT_EQ(columns[0].mean, series_columns(one.vocabulary)[0].mean) << "to the last bit";
  const std::vector<SeriesColumn> odd{{"a mean b std c", -1.5e-300, 0.1}};
  EXPECT_EQ(series_columns(series_vocabulary(odd))[0].name, odd[0].name);
  EXPECT_EQ(series_columns(series_vocabulary(odd))[0].std, 0.1);
  EXPECT_SAYS(
      error_of([&] { TimeSeries{.columns = "load"}.load(scratch / "series.csv", one.vocabulary); }),
      "task-columns = load; expected those of the run: rate");
  EXPECT_SAYS(error_of([] { series_columns(Vocabulary::bytes()); }), "expected that of a series");
  EXPECT_SAYS(error_of([] {
                series_columns(Vocabulary(Unit::Value, {"<missing>", "<asked>", "load"}));
              }),
              "'load'; expected a column with its mean and its std");
}

TEST_F(SeriesTest, BadInputIsOneLine) {
  TimeSeries task = small();
  task.season = 13;
  EXPECT_SAYS(says(task), "task-season = 13; expected at most task-context = 12");
  task = small();
  task.context = 137;
  EXPECT_SAYS(says(task),
              "200 rows, 140 of them for training; expected at least task-context + "
              "task-horizon = 141");
  task = small();
  task.horizon = 21;
  EXPECT_SAYS(says(task), "20 of them for validation; expected at least task-horizon = 21");
  task.horizon = 0;
  EXPECT_SAYS(says(task), "horizon");
  task = small();
  task.shares = {.valid = 0.5, .test = 0.5};
  EXPECT_SAYS(says(task), "leave nothing to train on");
  task = small();
  task.columns = "loud";
  EXPECT_SAYS(says(task), "no column 'loud'; known: load, rate");
  EXPECT_SAYS(error_of([&] { small().load({}); }), "data is not set; expected a CSV file");
  write(csv(kRows, [](int64_t t, int64_t c) { return c == 1 && t < 140 ? 4 : value_at(t, c); }));
  EXPECT_SAYS(says(), "column 'rate': 4 in all 140 rows for training; expected values that differ");
  for (const double same : {1e308, 1e-320}) {
    write(csv(kRows, [&](int64_t t, int64_t c) { return c == 1 ? same : value_at(t, c); }));
    EXPECT_SAYS(says(), "in all 140 rows for training; expected values that differ");
  }
  for (const double size : {1e308, 1e140, 1e-130, 1e-320}) {
    write(csv(kRows, [&](int64_t t, int64_t c) {
      return c == 1 ? size / 2 * (1 + double(t % 3) / 2) : value_at(t, c);
    }));
    EXPECT_SAYS(says(), "expected a standard deviation of 1e-100 to 1e+100, in other units");
  }
  write(csv(kRows, [](int64_t t, int64_t c) { return t == 190 ? 1e30 : value_at(t, c); }));
  EXPECT_SAYS(says(), "column 'load': a value is ");
  std::string none = "load\n";
  for (int64_t t = 0; t < kRows; ++t) none += t < 140 ? "nan\n" : "1\n";
  write(none);
  EXPECT_SAYS(says(), "column 'load': no value in the 140 rows for training");
  std::string late = "load\n";
  for (int64_t t = 0; t < kRows; ++t) late += t < 160 ? fmt::format("{}\n", t) : "nan\n";
  write(late);
  EXPECT_SAYS(says(), "the test part has no window whose 4 rows hold a value");
}

TEST_F(SeriesTest, IsATaskOfValues) {
  const Task task = small();
  EXPECT_EQ(task->reading(), "series");
  EXPECT_EQ(task->dimensions(), 1);
  EXPECT_FALSE(continues_text(task));
  EXPECT_STREQ(metric_name(task), "scaled error");
  EXPECT_EQ(metric_value(task, 0.25), 0.25);
  const Corpus corpus = load();
  EXPECT_SAYS(error_of([&] { task->read("1 2", "t", corpus.vocabulary); }), "deq forecast");
  const Tensor ids = at::tensor({level_of(1.5), kMissing, kAsked, level_of(-2)}).view({2, 2});
  EXPECT_EQ(task->show({ids, {}, corpus.vocabulary, corpus.vocabulary}), "1.5 . / ? -2");
}

}  // namespace
}  // namespace deq
