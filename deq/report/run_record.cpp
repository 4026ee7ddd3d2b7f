#include "deq/report/run_record.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "deq/base/printable.h"
#include "deq/base/toml.h"
#include "deq/files/files.h"
#include "deq/files/sha256.h"
#include "deq/runs/run.h"

namespace deq {
namespace {

using Json = nlohmann::json;

constexpr uint64_t kMostBytes = uint64_t(1) << 30;

/// Throws deq::Error where `text` is no line of metrics that can follow step `before`; `place` is
/// "FILE:LINE".
MetricsLine parse_line(const std::string& text, const std::string& place, int64_t before) {
  const Json row = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  const bool fits = row.is_object() && row.contains("step") && row["step"].is_number_integer() &&
                    row.contains("kind") && row["kind"].is_string();
  DEQ_CHECK(fits, "{}: '{}'; expected a JSON object with step and kind", place, printable(text));
  MetricsLine line{.kind = row["kind"], .step = row["step"]};
  const bool known = line.kind == "pretrain" || line.kind == "train" || line.kind == "valid" ||
                     line.kind == "test";
  DEQ_CHECK(known, "{}: kind '{}'; known: pretrain, train, valid, test", place,
            printable(line.kind));
  DEQ_CHECK(line.step >= before, "{}: step {} after step {}; expected rising steps", place,
            line.step, before);
  DEQ_CHECK(row.contains("loss"), "{}: no loss; expected one, or null", place);
  DEQ_CHECK(row["loss"].is_number() || row["loss"].is_null(),
            "{}: loss = {}; expected a number or null", place, printable(row["loss"].dump()));
  for (const auto& [key, value] : row.items()) {
    if (value.is_number()) line.numbers[key] = value.get<double>();
  }
  return line;
}

std::vector<MetricsLine> read_lines(const std::filesystem::path& path) {
  const std::string text = read_file(path, kMostBytes);
  std::vector<MetricsLine> lines;
  int64_t number = 0, step = 0;
  double minutes = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;
    MetricsLine line = parse_line(text.substr(begin, end - begin),
                                  fmt::format("{}:{}", path.string(), ++number), step);
    step = line.step;
    if (line.numbers.contains("seconds")) minutes = line.numbers["seconds"] / 60;
    line.minutes = minutes;
    lines.push_back(std::move(line));
    begin = end + 1;
  }
  return lines;
}

}  // namespace

double MetricsLine::at(const std::string& field) const {
  const auto found = numbers.find(field);
  return found == numbers.end() ? std::numeric_limits<double>::quiet_NaN() : found->second;
}

const MetricsLine* RunRecord::best_validation() const {
  const MetricsLine* best = nullptr;
  for (const MetricsLine& line : lines) {
    const bool better = !best || line.at("loss") < best->at("loss") || std::isnan(best->at("loss"));
    if (line.kind == "valid" && better) best = &line;
  }
  return best;
}

const MetricsLine* RunRecord::test() const {
  for (size_t i = lines.size(); i > 0; --i) {
    if (lines[i - 1].kind == "test") return &lines[i - 1];
  }
  return nullptr;
}

RunRecord read_run(const std::filesystem::path& folder) {
  RunRecord run;
  run.name = folder.string();
  run.options = read_run_options(folder);
  run.configuration =
      parse_toml(read_file(folder / "config.toml", kMostBytes), (folder / "config.toml").string());
  run.metric = metric_name(run.options.task);
  const std::filesystem::path vocabulary = folder / "vocab.txt";
  if (std::filesystem::exists(vocabulary)) run.vocabulary = sha256_hex_of_file(vocabulary);
  const std::filesystem::path metrics = folder / "metrics.jsonl";
  if (std::filesystem::exists(metrics)) run.lines = read_lines(metrics);
  DEQ_CHECK(!run.lines.empty(), "run '{}' has no line of metrics.jsonl yet; expected one at least",
            run.name);
  return run;
}

void check_comparable(const std::vector<RunRecord>& runs) {
  for (const RunRecord& run : runs) {
    DEQ_CHECK(run.metric == runs.front().metric,
              "runs cannot be compared: '{}' reports {}, '{}' {}; expected one metric",
              runs.front().name, runs.front().metric, run.name, run.metric);
  }
}

}  // namespace deq
