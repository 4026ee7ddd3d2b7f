#include "deq/tasks/series_scores.h"

#include <ATen/ATen.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "deq/base/levels.h"
#include "deq/base/quantiles.h"

namespace deq {

using at::Tensor;

namespace {

/// What adds up of each column, in this order.
enum Sum : int64_t {
  kCount,
  kAbsolute,
  kSquare,
  kSeasonAbsolute,
  kSeasonSquare,
  kPinball,
  kSeasonPinball,
  kInside80,
  kInside90,
  kCrossed,
  kSums
};

/// Place of a quantile; -1: it is not answered.
int64_t place_of(const std::vector<int64_t>& percents, int64_t percent) {
  const auto found = std::find(percents.begin(), percents.end(), percent);
  return found == percents.end() ? -1 : found - percents.begin();
}

/// Whether what is wanted lies between two quantiles; 0 where one is not answered.
Tensor inside(const Tensor& sorted, const Tensor& wanted, const std::vector<int64_t>& percents,
              int64_t low, int64_t high) {
  const int64_t first = place_of(percents, low), last = place_of(percents, high);
  if (first < 0 || last < 0) return at::zeros_like(wanted);
  return wanted.ge(sorted.select(3, first))
      .logical_and(wanted.le(sorted.select(3, last)))
      .to(at::kDouble);
}

double ratio(double sum, double count) { return count > 0 ? sum / count : NAN; }

/// What the sums (kSums) of one part say.
std::vector<std::pair<std::string, double>> numbers_of(const double* s,
                                                       const std::vector<int64_t>& percents) {
  const auto mean = [&](Sum which) { return ratio(s[which], s[kCount]); };
  std::vector<std::pair<std::string, double>> numbers{
      {"values", s[kCount]},
      {"mae", mean(kAbsolute)},
      {"season_mae", mean(kSeasonAbsolute)},
      {"rmse", std::sqrt(mean(kSquare))},
      {"season_rmse", std::sqrt(mean(kSeasonSquare))}};
  if (percents.empty()) return numbers;
  numbers.emplace_back("pinball", mean(kPinball));
  numbers.emplace_back("season_pinball", mean(kSeasonPinball));
  const auto answered = [&](int64_t percent) { return place_of(percents, percent) >= 0; };
  if (answered(10) && answered(90)) numbers.emplace_back("inside_80", mean(kInside80));
  if (answered(5) && answered(95)) numbers.emplace_back("inside_90", mean(kInside90));
  numbers.emplace_back("crossed", mean(kCrossed));
  return numbers;
}

double number(const ScoreRow& row, const std::string& name) {
  for (const auto& [known, value] : row.numbers) {
    if (known == name) return value;
  }
  return NAN;
}

}  // namespace

Tensor season_ago(const Tensor& ids, int64_t season) {
  const int64_t T = ids.size(1);
  const Tensor own = ids.to(at::kCPU), known = known_values(own), values = values_of(own);
  const Tensor asked = own.eq(kAsked), counted = known.sum(1, true).clamp_min(1);
  const Tensor mean = (values * known).sum(1, true) / counted;  // (B, 1, C)
  // Of each place in a season the latest value that is known.
  std::vector<Tensor> latest(size_t(season), mean.select(1, 0));
  Tensor found = at::zeros_like(values);
  for (int64_t t = 0; t < T; ++t) {
    Tensor& own_place = latest[size_t(t % season)];
    found.select(1, t).copy_(own_place * asked.select(1, t));
    own_place = at::where(known.select(1, t), values.select(1, t), own_place);
  }
  return found;
}

Tensor SeriesScoring::of_problems(const RealAnswers& answers, const Batch& batch) const {
  const std::vector<int64_t>& percents = answers.percents;
  const Tensor targets = batch.targets.to(at::kCPU);
  const Tensor scored = targets.ge(0).to(at::kDouble);
  std::vector<double> scale;
  for (const SeriesColumn& column : columns_) scale.push_back(column.std);
  const Tensor std = at::tensor(scale, at::kDouble);
  const Tensor wanted = values_of(targets);
  const Tensor given = answers.values.to(at::kCPU, at::kDouble);  // (B, T, C, n)
  const Tensor sorted = std::get<0>(given.sort(-1));
  const Tensor middle = sorted.select(3, std::max<int64_t>(0, place_of(percents, 50)));
  const Tensor season = season_ago(batch.tokens, season_);
  const Tensor error = (middle - wanted) * std, before = (season - wanted) * std;
  std::vector<Tensor> parts(kSums, at::zeros_like(wanted));
  parts[kCount] = at::ones_like(wanted);
  parts[kAbsolute] = error.abs();
  parts[kSquare] = error.square();
  parts[kSeasonAbsolute] = before.abs();
  parts[kSeasonSquare] = before.square();
  if (!percents.empty()) {
    parts[kPinball] = pinball(sorted, wanted, percents) * std;
    parts[kSeasonPinball] = pinball(season.unsqueeze(3), wanted, percents) * std;
    parts[kInside80] = inside(sorted, wanted, percents, 10, 90);
    parts[kInside90] = inside(sorted, wanted, percents, 5, 95);
    parts[kCrossed] = given.diff(1, -1).lt(0).any(-1).to(at::kDouble);
  }
  const Tensor all = at::stack(parts, 3);  // (B, T, C, kSums)
  return at::where(scored.unsqueeze(3) > 0, all, at::zeros_like(all)).sum(1).flatten(1);
}

std::vector<ScoreRow> SeriesScoring::rows(const Tensor& sums,
                                          const std::vector<int64_t>& percents) const {
  const auto C = int64_t(columns_.size());
  const Tensor each = sums.view({C, kSums}).contiguous(), all = each.sum(0);
  std::vector<ScoreRow> rows{{"", numbers_of(all.data_ptr<double>(), percents)}};
  double relative = 0, counted = 0;
  for (int64_t c = 0; c < C; ++c) {
    rows.push_back(
        {columns_[size_t(c)].name, numbers_of(each.data_ptr<double>() + c * kSums, percents)});
    const double own = number(rows.back(), "mae") / number(rows.back(), "season_mae");
    if (std::isnan(own)) continue;  // nothing of it was scored
    relative += own;
    ++counted;
  }
  rows.front().numbers.emplace_back("relative_mae", ratio(relative, counted));
  return rows;
}

std::string SeriesScoring::text(const std::vector<ScoreRow>& rows) const {
  const ScoreRow& all = rows.front();
  const auto pair = [&](const char* shown, const std::string& name) {
    return fmt::format("{} {:.4g} (season ago {:.4g})", shown, number(all, name),
                       number(all, "season_" + name));
  };
  std::string text = pair("MAE", "mae") + ", " + pair("RMSE", "rmse");
  for (const auto& [name, value] : all.numbers) {
    if (name == "pinball") text += ", " + pair("pinball", name);
    if (name == "inside_80") text += fmt::format(", {:.1f}% inside 80%", 100 * value);
    if (name == "inside_90") text += fmt::format(", {:.1f}% inside 90%", 100 * value);
    if (name == "crossed" && value > 0) text += fmt::format(", {:.1f}% crossed", 100 * value);
  }
  return text;
}

}  // namespace deq
