// What forecasts of series are scored by, and the baseline, beside slow counts.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "deq/base/levels.h"
#include "deq/tasks/time_series.h"
#include "tests/tasks/series_file.h"

namespace deq {
namespace {

using at::Tensor;
using testing::kTiny;
using testing::missing_at;
using testing::scale_of;
using testing::SeriesTest;

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

}  // namespace
}  // namespace deq
