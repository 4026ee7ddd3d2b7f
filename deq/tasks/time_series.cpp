#include "deq/tasks/time_series.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <numeric>

#include "deq/base/levels.h"
#include "deq/base/printable.h"
#include "deq/data/random.h"

namespace deq {

using at::Tensor;

namespace {

constexpr const char* kMarkNames[kMarks] = {"<missing>", "<asked>"};
// Of a column: its squares, and their sums, are numbers with all of their digits.
constexpr double kLeastStd = 1e-100, kMostStd = 1e100;
constexpr std::string_view kMean = " mean ", kStd = " std ";

/// Rows of one part that are asked for: from `first` until `end`.
struct Part {
  const char* name;
  int64_t first, end;
};

/// Training, validation, test.
struct Parts {
  Part train, valid, test;
};

Parts parts_of(const TimeSeries& task, const SeriesTable& table) {
  const int64_t rows = table.values.size(0);
  const auto end = [&](double share) { return int64_t(std::floor(double(rows) * share + 1e-6)); };
  const SplitShares& shares = task.shares;
  DEQ_CHECK(shares.valid + shares.test < 1 - 1e-9,
            "task-valid-share {} and task-test-share {} leave nothing to train on; expected a sum "
            "below 1",
            shares.valid, shares.test);
  const int64_t valid = end(1 - shares.valid - shares.test), test = end(1 - shares.test);
  const Parts parts{{"training", 0, valid}, {"validation", valid, test}, {"test", test, rows}};
  DEQ_CHECK(valid >= task.context + task.horizon,
            "{}: {} rows, {} of them for training; expected at least task-context + task-horizon = "
            "{}",
            table.source, rows, valid, task.context + task.horizon);
  for (const Part& part : {parts.valid, parts.test})
    DEQ_CHECK(part.end - part.first >= task.horizon,
              "{}: {} rows, {} of them for {}; expected at least task-horizon = {}", table.source,
              rows, part.end - part.first, part.name, task.horizon);
  return parts;
}

/// Scales of the training part alone.
std::vector<SeriesColumn> fit_columns(const SeriesTable& table, const Part& train) {
  std::vector<SeriesColumn> columns;
  for (size_t c = 0; c < table.columns.size(); ++c) {
    const Tensor all = table.values.select(1, int64_t(c)).narrow(0, 0, train.end);
    const Tensor known = all.masked_select(all.isnan().logical_not());
    const std::string& name = table.columns[c];
    DEQ_CHECK(known.numel() > 0,
              "{}, column '{}': no value in the {} rows for training; expected some", table.source,
              printable(name), train.end);
    const double least = known.min().item<double>(), most = known.max().item<double>();
    DEQ_CHECK(least < most,
              "{}, column '{}': {} in all {} rows for training; expected values that differ",
              table.source, printable(name), least, train.end);
    const double mean = known.mean().item<double>();
    const double std = (known - mean).square().mean().sqrt().item<double>();
    DEQ_CHECK(std >= kLeastStd && std <= kMostStd,
              "{}, column '{}': values from {} to {} in the {} rows for training; expected a "
              "standard deviation of {} to {}, in other units",
              table.source, printable(name), least, most, train.end, kLeastStd, kMostStd);
    columns.push_back({name, mean, std});
  }
  return columns;
}

/// Windows of a table.
class Windows {
 public:
  Windows(const TimeSeries& task, Tensor values, std::shared_ptr<const Scoring> scoring)
      : task_(task), values_(std::move(values)), scoring_(std::move(scoring)) {
    const Tensor known = values_.isnan().logical_not().any(1).to(at::kLong).cumsum(0);
    known_.assign(known.data_ptr<int64_t>(), known.data_ptr<int64_t>() + known.size(0));
  }

  /// First rows that are asked for, `stride` apart, of windows where some value is known of what is
  /// asked.
  std::vector<int64_t> origins(const Part& part, int64_t stride) const {
    std::vector<int64_t> found;
    for (int64_t first = std::max(part.first, task_.context); first + task_.horizon <= part.end;
         first += stride) {
      const int64_t before = first > 0 ? known_[size_t(first - 1)] : 0;
      if (known_[size_t(first + task_.horizon - 1)] > before) found.push_back(first);
    }
    DEQ_CHECK(!found.empty(),
              "the {} part has no window whose {} rows hold a value; expected task-context = {} "
              "rows before it and values",
              part.name, task_.horizon, task_.context);
    return found;
  }

  Split split(const std::vector<int64_t>& origins) const {
    const int64_t S = int64_t(origins.size()), T = task_.context + task_.horizon;
    Split split{.tokens = at::full({S, T, values_.size(1)}, kAsked, at::kLong),
                .targets = at::full({S, T, values_.size(1)}, -1, at::kLong),
                .scoring = scoring_};
    for (int64_t s = 0; s < S; ++s) {
      const Context context = context_of(
          values_.narrow(0, origins[size_t(s)] - task_.context, task_.context), task_.centre);
      split.tokens[s].narrow(0, 0, task_.context).copy_(context.ids);
      const Tensor behind = values_.narrow(0, origins[size_t(s)], task_.horizon) - context.centre;
      split.targets[s].narrow(0, task_.context, task_.horizon).copy_(targets_of(behind));
    }
    return split;
  }

 private:
  static Tensor targets_of(const Tensor& values);

  TimeSeries task_;
  Tensor values_;  // (rows, C) scaled
  std::shared_ptr<const Scoring> scoring_;
  std::vector<int64_t> known_;  // rows until this one in which some value is known
};

/// Levels of values (T, C), `missing` where there is none.
Tensor levels(const Tensor& values, int64_t missing) {
  const Tensor own = values.contiguous();
  Tensor ids = at::empty(own.sizes(), at::kLong);
  const double* value = own.data_ptr<double>();
  auto* id = ids.data_ptr<int64_t>();
  for (int64_t i = 0; i < own.numel(); ++i)
    id[i] = std::isnan(value[i]) ? missing : level_of(value[i]);
  return ids;
}

Tensor Windows::targets_of(const Tensor& values) { return levels(values, -1); }

Corpus make_corpus(const TimeSeries& task, const SeriesTable& table,
                   const std::vector<SeriesColumn>& columns) {
  const Parts parts = parts_of(task, table);
  const auto scoring = std::make_shared<SeriesScoring>(columns, task.season);
  const Windows windows(task, scaled(table, columns), scoring);
  const int64_t stride = task.stride > 0 ? task.stride : task.horizon;
  Corpus corpus;
  corpus.vocabulary = series_vocabulary(columns);
  corpus.valid = windows.split(windows.origins(parts.valid, stride));
  corpus.test = windows.split(windows.origins(parts.test, stride));
  const std::vector<int64_t> all = windows.origins(parts.train, 1);
  const auto count = int64_t(all.size());
  if (task.windows == 0 || count <= task.windows) {
    corpus.train = windows.split(all);
    return corpus;
  }
  corpus.draw = [task, windows, all, count](int64_t epoch) {
    std::vector<int64_t> drawn;
    const std::vector<int64_t> order = permutation(count, random_stream({task.seed, epoch}));
    for (int64_t i = 0; i < task.windows; ++i) drawn.push_back(all[size_t(order[size_t(i)])]);
    return windows.split(drawn);
  };
  corpus.train = corpus.draw(0);
  return corpus;
}

SeriesTable table_of(const TimeSeries& task, const std::filesystem::path& data,
                     const std::vector<std::string>& columns) {
  validate(task, "TimeSeries");
  DEQ_CHECK(!data.empty(), "data is not set; expected a CSV file for task {}", TimeSeries::name);
  DEQ_CHECK(task.season <= task.context,
            "task-season = {}; expected at most task-context = {}: the baseline sees no more",
            task.season, task.context);
  return read_table(data, {.columns = columns, .time = task.time});
}

std::vector<std::string> names_of(const std::vector<SeriesColumn>& columns) {
  std::vector<std::string> names;
  for (const SeriesColumn& column : columns) names.push_back(column.name);
  return names;
}

std::optional<double> number(std::string_view text) {
  double value = 0;
  const auto parsed = std::from_chars(text.data(), text.data() + text.size(), value);
  if (parsed.ec != std::errc() || parsed.ptr != text.data() + text.size()) return std::nullopt;
  return value;
}

}  // namespace

Vocabulary series_vocabulary(const std::vector<SeriesColumn>& columns) {
  std::vector<std::string> tokens(std::begin(kMarkNames), std::end(kMarkNames));
  for (const SeriesColumn& column : columns)
    tokens.push_back(fmt::format("{}{}{}{}{}", column.name, kMean, column.mean, kStd, column.std));
  return Vocabulary(Unit::Value, std::move(tokens));
}

std::vector<SeriesColumn> series_columns(const Vocabulary& vocabulary) {
  std::vector<SeriesColumn> columns;
  DEQ_CHECK(vocabulary.unit() == Unit::Value, "a vocabulary of {}s; expected that of a series",
            unit_name(vocabulary.unit()));
  for (int64_t id = kMarks; id < vocabulary.size(); ++id) {
    const std::string& token = vocabulary.token(id);
    const size_t std = token.rfind(kStd), mean = token.rfind(kMean, std);
    const bool parts = std != std::string::npos && mean != std::string::npos;
    const auto own_mean =
        parts
            ? number(std::string_view(token).substr(mean + kMean.size(), std - mean - kMean.size()))
            : std::nullopt;
    const auto own_std =
        parts ? number(std::string_view(token).substr(std + kStd.size())) : std::nullopt;
    DEQ_CHECK(own_mean && own_std && *own_std > 0,
              "vocabulary: '{}'; expected a column with its mean and its std", printable(token));
    columns.push_back({token.substr(0, mean), *own_mean, *own_std});
  }
  return columns;
}

Tensor scaled(const SeriesTable& table, const std::vector<SeriesColumn>& columns) {
  constexpr double kFarthest = kLargestValue / 2;  // so that differences are levels too
  Tensor values = at::empty_like(table.values);
  for (size_t c = 0; c < columns.size(); ++c) {
    const Tensor own = (table.values.select(1, int64_t(c)) - columns[c].mean) / columns[c].std;
    const double most = own.abs().nan_to_num(0).max().item<double>();
    DEQ_CHECK(most <= kFarthest,
              "{}, column '{}': a value is {:.3g} standard deviations of the training part away "
              "from its mean; expected at most 2^27",
              table.source, printable(columns[c].name), most);
    values.select(1, int64_t(c)).copy_(own);
  }
  return values;
}

Context context_of(const Tensor& values, Centre centre) {
  const int64_t T = values.size(0), C = values.size(1);
  Tensor from = at::zeros({C}, at::kDouble);
  if (centre == Centre::Mean) from = values.nanmean(0).nan_to_num(0);
  for (int64_t c = 0; centre == Centre::Last && c < C; ++c) {
    for (int64_t t = T - 1; t >= 0; --t) {
      const double value = values[t][c].item<double>();
      if (std::isnan(value)) continue;
      from[c] = value;
      break;
    }
  }
  return {levels(values - from, kMissing), from};
}

Corpus TimeSeries::load(const std::filesystem::path& data) const {
  const SeriesTable table = table_of(*this, data, split_names(columns));
  return make_corpus(*this, table, fit_columns(table, parts_of(*this, table).train));
}

Corpus TimeSeries::load(const std::filesystem::path& data, const Vocabulary& vocabulary) const {
  const std::vector<SeriesColumn> own = series_columns(vocabulary);
  DEQ_CHECK(columns.empty() || split_names(columns) == names_of(own),
            "task-columns = {}; expected those of the run: {}", printable(columns),
            printable(fmt::format("{}", fmt::join(names_of(own), ",")), 400));
  return make_corpus(*this, table_of(*this, data, names_of(own)), own);
}

std::vector<WrittenProblem> TimeSeries::read_text(const std::string&, const std::string&,
                                                  const Vocabulary&) const {
  throw Error("problems of task series are tables; expected `deq forecast` with a CSV file");
}

std::string TimeSeries::show(const Shown& shown) const {
  const Tensor& ids = shown.answer.defined() ? shown.answer : shown.problem;
  const Tensor values = values_of(ids);
  std::vector<std::string> rows;
  for (int64_t t = 0; t < ids.size(0); ++t) {
    std::vector<std::string> cells;
    for (int64_t c = 0; c < ids.size(1); ++c) {
      const int64_t id = ids[t][c].item<int64_t>();
      cells.push_back(id < 0 || id == kMissing ? "."
                      : id == kAsked           ? "?"
                                     : fmt::format("{:.4g}", values[t][c].item<double>()));
    }
    rows.push_back(fmt::format("{}", fmt::join(cells, " ")));
  }
  return fmt::format("{}", fmt::join(rows, shown.picture ? "\n" : " / "));
}

}  // namespace deq
