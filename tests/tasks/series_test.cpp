// Series of real values: windows hold what stands in the file, scaled by its first part alone, and
// nothing of what they ask for; scores and the baseline are what a slow count gives.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <set>

#include "deq/base/levels.h"
#include "deq/tasks/tasks.h"
#include "deq/tasks/time_series.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;
using testing::error_of;
using testing::Scratch;
using testing::spill;

constexpr int64_t kRows = 200;  // 140 for training, 20 for validation, 40 for the test
constexpr double kTiny = 1e-9;  // of what levels round

/// Two seasons, a trend, and a second column on another scale; "" where a value is missing.
double value_at(int64_t row, int64_t column) {
  const double t = double(row);
  const double load = 500 + 0.3 * t + 40 * std::sin(t / 2) + 10 * std::cos(t * t);
  return column == 0 ? load : 1e-3 * std::sin(t / 5) + 0.01;
}
bool missing_at(int64_t row, int64_t column) { return (row * 7 + column * 3) % 23 == 5; }

using Value = std::function<double(int64_t row, int64_t column)>;

std::string csv(int64_t rows, const Value& value = value_at) {
  std::string text = "load,rate\n";
  for (int64_t t = 0; t < rows; ++t) {
    for (int64_t c = 0; c < 2; ++c)
      text += (c > 0 ? "," : "") + (missing_at(t, c) ? "" : fmt::format("{:.17g}", value(t, c)));
    text += '\n';
  }
  return text;
}

TimeSeries small() { return {.context = 12, .horizon = 4, .season = 3}; }

class SeriesTest : public ::testing::Test {
 protected:
  SeriesTest() { write(csv(kRows)); }
  void write(const std::string& text) { spill(scratch / "series.csv", text); }
  Corpus load(const TimeSeries& task = small()) { return task.load(scratch / "series.csv"); }
  std::string says(const TimeSeries& task = small()) {
    return error_of([&] { load(task); });
  }
  Scratch scratch;
};

/// Mean and standard deviation of the known values of the first `rows`, with a count of their own.
SeriesColumn scale_of(int64_t column, int64_t rows) {
  double sum = 0, squares = 0, count = 0;
  for (int64_t t = 0; t < rows; ++t) {
    if (missing_at(t, column)) continue;
    sum += value_at(t, column);
    ++count;
  }
  for (int64_t t = 0; t < rows; ++t)
    if (!missing_at(t, column)) squares += std::pow(value_at(t, column) - sum / count, 2);
  return {column == 0 ? "load" : "rate", sum / count, std::sqrt(squares / count)};
}

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

/// The baseline of one place by the rule, one season after the other.
double slow_season(const Tensor& ids, int64_t b, int64_t t, int64_t c, int64_t season) {
  for (int64_t before = t - season; before >= 0; before -= season) {
    const int64_t id = ids[b][before][c].item<int64_t>();
    if (id >= kMarks) return values_of(at::tensor({id})).item<double>();
  }
  double sum = 0, count = 0;
  for (int64_t s = 0; s < ids.size(1); ++s) {
    const int64_t id = ids[b][s][c].item<int64_t>();
    if (id < kMarks) continue;
    sum += values_of(at::tensor({id})).item<double>();
    ++count;
  }
  return count > 0 ? sum / count : 0;
}

TEST_F(SeriesTest, TheBaselineIsASeasonAgo) {
  Tensor ids = load().test.tokens.clone();
  ids[0].narrow(0, 0, 12).select(1, 0).fill_(kMissing);  // a column without a value
  ids[1].narrow(0, 1, 11).select(1, 1).fill_(kMissing);  // one with one
  for (const int64_t season : {1, 3, 5, 12}) {
    const Tensor found = season_ago(ids, season);
    for (int64_t b = 0; b < ids.size(0); ++b)
      for (int64_t t = 0; t < 16; ++t)
        for (int64_t c = 0; c < 2; ++c)
          ASSERT_NEAR(found[b][t][c].item<double>(), t < 12 ? 0 : slow_season(ids, b, t, c, season),
                      kTiny)
              << season << ": " << b << " " << t << " " << c;
  }
}

double named(const ScoreRow& row, const std::string& name) {
  for (const auto& [known, value] : row.numbers)
    if (known == name) return value;
  ADD_FAILURE() << "no " << name;
  return NAN;
}

/// max(q e, (q - 1) e), written as two cases.
double slow_pinball(double forecast, double value, double q) {
  return value >= forecast ? q * (value - forecast) : (1 - q) * (forecast - value);
}

TEST_F(SeriesTest, ScoresAreWhatASlowCountGives) {
  const Corpus corpus = load();
  const std::vector<int64_t> percents{5, 10, 50, 90, 95};
  const int64_t S = corpus.test.tokens.size(0);
  at::manual_seed(1);
  const Tensor given = at::randn({S, 16, 2, 5}, at::kDouble) * 0.7;
  const auto& scoring = *corpus.test.scoring;
  const Batch batch{.tokens = corpus.test.tokens, .targets = corpus.test.targets};
  const Tensor sums = scoring.of_problems({given, percents}, batch);
  ASSERT_EQ(sums.size(0), S);
  const auto rows = scoring.rows(sums.sum(0), percents);
  ASSERT_EQ(rows.size(), 3u);
  double counts[2] = {}, mae[2] = {}, squares[2] = {}, pinball[2] = {}, season[2] = {},
         season_pinball[2] = {}, season_squares[2] = {}, in80[2] = {}, in90[2] = {},
         crossed[2] = {};
  for (int64_t s = 0; s < S; ++s) {
    for (int64_t t = 12; t < 16; ++t) {
      for (int64_t c = 0; c < 2; ++c) {
        const int64_t row = 160 + 4 * s + t - 12;
        if (missing_at(row, c)) continue;
        const SeriesColumn scale = scale_of(c, 140);
        const Tensor own = given[s][t][c];
        std::vector<double> q(own.data_ptr<double>(), own.data_ptr<double>() + 5);
        crossed[c] += std::is_sorted(q.begin(), q.end()) ? 0 : 1;
        std::sort(q.begin(), q.end());
        // In the user's units: what counts is the distance, whatever a window is counted from.
        const double value = values_of(corpus.test.targets[s][t][c].reshape({1})).item<double>();
        const double before = slow_season(corpus.test.tokens, s, t, c, 3);
        ++counts[c];
        mae[c] += std::abs(q[2] - value) * scale.std;
        squares[c] += std::pow((q[2] - value) * scale.std, 2);
        season[c] += std::abs(before - value) * scale.std;
        season_squares[c] += std::pow((before - value) * scale.std, 2);
        for (int k = 0; k < 5; ++k) {
          const double share = double(percents[size_t(k)]) / 100;
          pinball[c] += slow_pinball(q[size_t(k)], value, share) * scale.std / 5;
          season_pinball[c] += slow_pinball(before, value, share) * scale.std / 5;
        }
        in80[c] += q[1] <= value && value <= q[3] ? 1 : 0;
        in90[c] += q[0] <= value && value <= q[4] ? 1 : 0;
      }
    }
  }
  const auto expect = [&](const char* name, const double(&of)[2], bool root = false) {
    const auto shown = [&](double sum, double count) {
      return root ? std::sqrt(sum / count) : sum / count;
    };
    for (size_t c = 0; c < 2; ++c)
      EXPECT_NEAR(named(rows[c + 1], name), shown(of[c], counts[c]), 1e-7 * shown(of[c], counts[c]))
          << name << " " << c;
    const double all = shown(of[0] + of[1], counts[0] + counts[1]);
    EXPECT_NEAR(named(rows[0], name), all, 1e-7 * all) << name;
  };
  expect("mae", mae);
  expect("rmse", squares, true);
  expect("season_mae", season);
  expect("season_rmse", season_squares, true);
  expect("pinball", pinball);
  expect("season_pinball", season_pinball);
  expect("inside_80", in80);
  expect("inside_90", in90);
  expect("crossed", crossed);
  EXPECT_EQ(named(rows[0], "values"), counts[0] + counts[1]);
  EXPECT_NEAR(named(rows[0], "relative_mae"), (mae[0] / season[0] + mae[1] / season[1]) / 2, 1e-7);
  EXPECT_EQ(rows[0].name, "");
  EXPECT_EQ(rows[2].name, "rate");
  const std::string text = scoring.text(rows);
  EXPECT_SAYS(text, fmt::format("MAE {:.4g} (season ago {:.4g}), RMSE ", named(rows[0], "mae"),
                                named(rows[0], "season_mae")));
  EXPECT_SAYS(text,
              fmt::format(", {:.1f}% inside 80%, {:.1f}% inside 90%, {:.1f}% crossed",
                          100 * named(rows[0], "inside_80"), 100 * named(rows[0], "inside_90"),
                          100 * named(rows[0], "crossed")));
}

TEST_F(SeriesTest, WhatIsRightScoresZero) {
  const Corpus corpus = load();
  const Batch batch{.tokens = corpus.test.tokens, .targets = corpus.test.targets};
  const Tensor right = values_of(corpus.test.targets).unsqueeze(3);
  const auto rows =
      corpus.test.scoring->rows(corpus.test.scoring->of_problems({right, {}}, batch).sum(0), {});
  EXPECT_EQ(named(rows[0], "mae"), 0);
  EXPECT_EQ(named(rows[0], "rmse"), 0);
  EXPECT_GT(named(rows[0], "season_mae"), 1);
  for (const auto& [name, value] : rows[0].numbers) {
    EXPECT_NE(name, "pinball") << "of one number";
    EXPECT_NE(name, "inside_80");
  }
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
