#include "deq/runs/metrics.h"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>

#include "deq/base/memory_meter.h"
#include "deq/base/printable.h"
#include "deq/files/files.h"

namespace deq {
namespace {

using Json = nlohmann::ordered_json;

constexpr uint64_t kMostBytes = uint64_t(1) << 30;

Json finite_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(); }

/// Those of all beside the loss, and those of parts by the parts' names.
void add_scores(Json& row, const std::vector<ScoreRow>& scores) {
  for (const ScoreRow& score : scores) {
    Json numbers;
    for (const auto& [name, value] : score.numbers) numbers[name] = finite_or_null(value);
    if (score.name.empty())
      row.update(numbers);
    else
      row["columns"][score.name] = numbers;
  }
}

double to_tenths(double value) { return std::round(value * 10) / 10; }

}  // namespace

Json json_of(const Evaluation& e, const Task& task) {
  Json row{{"loss", finite_or_null(e.loss)},
           {metric_name(task), finite_or_null(metric_value(task, e.loss))},
           {"tokens", e.tokens}};
  if (e.depth > 0) {
    row["depth"] = e.depth;
  } else {
    row["residual"] = finite_or_null(e.mean_residual);
    row["worst_residual"] = finite_or_null(e.worst_residual);
    row["converged_share"] = e.converged_share;
    row["unconverged"] = e.unconverged;
    row["evaluations"] = e.evaluations;
  }
  if (!e.halting.empty()) {
    row["halting"] = e.halting;
    row["halting_steps"] = e.halting_steps;
    row["halted_share"] = e.halted_share;
    row["residual"] = finite_or_null(e.mean_residual);
    row["converged_share"] = e.converged_share;
  }
  if (e.answer != 0) {
    row["answer_loss"] = finite_or_null(e.answer_loss);
    row["exact_share"] = e.exact_share;
    row["right_share"] = e.right_share;
  }
  add_scores(row, e.scores);
  return row;
}

void Metrics::rewind(int64_t step) {
  rewound_to_ = step;
  keep([step](const Json& row) { return row["step"].get<int64_t>() <= step; });
}

void Metrics::keep(const std::function<bool(const Json&)>& wanted) {
  if (!std::filesystem::exists(path_)) return;
  const std::string text = read_file(path_, kMostBytes);
  std::string kept;
  int64_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;
    ++number;
    const std::string line = text.substr(begin, end - begin + 1);
    const Json row = Json::parse(line, nullptr, /*allow_exceptions=*/false);
    const bool counted = row.is_object() && row.contains("step") && row["step"].is_number_integer();
    DEQ_CHECK(counted, "{}:{}: '{}'; expected a JSON object with step", path_.string(), number,
              printable(line.substr(0, end - begin)));
    if (wanted(row)) kept += line;
    begin = end + 1;
  }
  if (kept != text) write_file(path_, kept);
}

void Metrics::append(const Json& row) {
  const std::string line = row.dump() + "\n";
  std::FILE* file = std::fopen(path_.c_str(), "a");
  const bool written = file && std::fwrite(line.data(), 1, line.size(), file) == line.size();
  const bool closed = file && std::fclose(file) == 0;
  DEQ_CHECK(written && closed, "{}: cannot append: {}", path_.string(), std::strerror(errno));
}

void Metrics::step(const StepReport& report, double tokens_per_second, double seconds) {
  Json row{{"step", report.step},
           {"kind", report.pretraining ? "pretrain" : "train"},
           {"loss", finite_or_null(report.loss)},
           {"rate", report.rate},
           {"gradient_norm", finite_or_null(report.gradient_norm)}};
  if (report.depth > 0) {
    row["depth"] = report.depth;
  } else {
    row["residual"] = finite_or_null(report.residual);
    row["converged_share"] = report.converged_share;
    row["evaluations"] = report.evaluations;
  }
  if (report.adjoint_solves > 0) {
    row["adjoint_residual"] = finite_or_null(report.adjoint_residual);
    row["adjoint_converged_share"] = report.adjoint_converged_share;
    row["adjoint_evaluations"] = report.adjoint_evaluations;
  }
  if (report.jacobian_estimates > 0) row["jacobian"] = finite_or_null(report.jacobian);
  if (report.rest > 0) row["rest"] = report.rest;
  if (report.halting_steps > 0) {
    row["halting_loss"] = finite_or_null(report.halting);
    row["halting_steps"] = report.halting_steps;
  }
  if (!report.finite) row["skipped"] = true;
  if (report.processes > 1) {
    row["processes"] = report.processes;
    row["waited"] = std::round(report.waited * 1e4) / 1e4;
  }
  row["tokens_per_second"] = std::round(tokens_per_second);
  row["seconds"] = to_tenths(seconds);
  row["peak_mb"] = std::round(peak_process_megabytes());
  append(row);
}

void Metrics::evaluation(int64_t step, const char* kind, const Evaluation& evaluation,
                         const Task& task, double seconds) {
  if (step == rewound_to_) {
    keep([&](const Json& row) {
      return row["step"] != step || !row.contains("kind") || row["kind"] != kind;
    });
  }
  Json row{{"step", step}, {"kind", kind}};
  row.update(json_of(evaluation, task));
  row["seconds"] = to_tenths(seconds);
  append(row);
}

}  // namespace deq
