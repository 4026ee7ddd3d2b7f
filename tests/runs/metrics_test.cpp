// Every number of metrics.jsonl is that of the report, and stands only where there is one.
#include "deq/runs/metrics.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "deq/base/memory_meter.h"
#include "deq/base/printable.h"
#include "deq/tasks/bytes.h"
#include "deq/tasks/copy_memory.h"
#include "deq/tasks/words.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using Json = nlohmann::json;

/// No two numbers are alike, nor half or twice each other.
StepReport report() {
  StepReport r;
  r.step = 17;
  r.loss = 2.31;
  r.jacobian_estimates = 1;
  r.jacobian = 0.71;
  r.gradient_norm = 1.13;
  r.halting = 0.043;
  r.halting_steps = 6.7;
  r.rate = 3e-3;
  r.residual = 1.7e-3;
  r.converged_share = 0.83;
  r.evaluations = 11.5;
  r.adjoint_solves = 2;
  r.adjoint_residual = 5.3e-3;
  r.adjoint_converged_share = 0.37;
  r.adjoint_evaluations = 8.5;
  return r;
}

Json written(const StepReport& report) {
  const testing::Scratch scratch;
  Metrics(scratch / "metrics.jsonl").step(report, 1234.4, 5.67);
  return Json::parse(testing::slurp(scratch / "metrics.jsonl"));
}

TEST(Metrics, AStepsLineHasItsNumbers) {
  const Json row = written(report());
  const Json expected = {{"step", 17},
                         {"kind", "train"},
                         {"loss", 2.31},
                         {"rate", 3e-3},
                         {"gradient_norm", 1.13},
                         {"residual", 1.7e-3},
                         {"converged_share", 0.83},
                         {"evaluations", 11.5},
                         {"adjoint_residual", 5.3e-3},
                         {"adjoint_converged_share", 0.37},
                         {"adjoint_evaluations", 8.5},
                         {"jacobian", 0.71},
                         {"halting_loss", 0.043},
                         {"halting_steps", 6.7},
                         {"tokens_per_second", 1234},
                         {"seconds", 5.7}};
  for (const auto& [key, value] : expected.items()) EXPECT_EQ(row.at(key), value) << key;
  EXPECT_EQ(row.size(), expected.size() + 1) << row.dump();
  EXPECT_NEAR(row.at("peak_mb").get<double>(), peak_process_megabytes(), 30);
}

TEST(Metrics, WhatIsNotThereIsNotWritten) {
  StepReport r = report();
  r.adjoint_solves = 0;
  r.adjoint_residual = r.adjoint_converged_share = r.adjoint_evaluations = 0;
  r.jacobian_estimates = 0;
  r.jacobian = r.halting = r.halting_steps = 0;
  Json row = written(r);
  for (const char* key : {"adjoint_residual", "adjoint_converged_share", "adjoint_evaluations",
                          "jacobian", "halting_loss", "halting_steps", "depth", "skipped"})
    EXPECT_FALSE(row.contains(key)) << key;
  r = report();
  r.jacobian = 0;
  EXPECT_EQ(written(r).at("jacobian"), 0) << "estimated, and zero";
  r.adjoint_solves = 0;
  r.depth = 3;
  row = written(r);
  EXPECT_EQ(row.at("depth"), 3);
  for (const char* key : {"residual", "converged_share", "evaluations"})
    EXPECT_FALSE(row.contains(key)) << key;
  r.depth = 0;
  r.pretraining = true;
  EXPECT_EQ(written(r).at("kind"), "pretrain");
}

TEST(Metrics, WhatIsNotFiniteIsNull) {
  StepReport r = report();
  r.loss = r.gradient_norm = r.residual = r.adjoint_residual = r.jacobian = NAN;
  r.finite = false;
  const Json row = written(r);
  for (const char* key : {"loss", "gradient_norm", "residual", "adjoint_residual", "jacobian"})
    EXPECT_TRUE(row.at(key).is_null()) << key;
  EXPECT_EQ(row.at("skipped"), true);
}

Evaluation evaluation() {
  Evaluation e;
  e.tokens = 321;
  e.loss = 1.9;
  e.mean_residual = 2.3e-3;
  e.worst_residual = 0.17;
  e.converged_share = 0.77;
  e.unconverged = 13;
  e.evaluations = 9.25;
  return e;
}

TEST(Metrics, AnEvaluationsLineHasItsNumbers) {
  const testing::Scratch scratch;
  Metrics metrics(scratch / "metrics.jsonl");
  metrics.evaluation(40, "valid", evaluation(), Bytes{}, 61.23);
  const Json row = Json::parse(testing::slurp(scratch / "metrics.jsonl"));
  const Json expected = {{"step", 40},
                         {"kind", "valid"},
                         {"loss", 1.9},
                         {"bits per byte", 1.9 / std::log(2.0)},
                         {"tokens", 321},
                         {"residual", 2.3e-3},
                         {"worst_residual", 0.17},
                         {"converged_share", 0.77},
                         {"unconverged", 13},
                         {"evaluations", 9.25},
                         {"seconds", 61.2}};
  EXPECT_EQ(row, expected) << row.dump();
  EXPECT_EQ(json_of(evaluation(), Words{}).at("perplexity"), std::exp(1.9));
}

TEST(Metrics, OfAnswersAndOfExplicitNetworks) {
  Evaluation e = evaluation();
  e.answer = 10;
  e.answer_loss = 0.3;
  e.exact_share = 0.125;
  e.right_share = 0.75;
  Json row = json_of(e, CopyMemory{});
  EXPECT_EQ(row.at("answer_loss"), 0.3);
  EXPECT_EQ(row.at("exact_share"), 0.125);
  EXPECT_EQ(row.at("right_share"), 0.75);
  e = evaluation();
  e.depth = 4;
  row = json_of(e, Bytes{});
  EXPECT_EQ(row.at("depth"), 4);
  EXPECT_EQ(row.size(), 4u) << row.dump();
  e.halting = "act";
  e.halting_steps = 5.5;
  e.halted_share = 0.875;
  row = json_of(e, Bytes{});
  EXPECT_EQ(row.at("halting"), "act");
  EXPECT_EQ(row.at("halting_steps"), 5.5);
  EXPECT_EQ(row.at("halted_share"), 0.875);
  EXPECT_EQ(row.at("residual"), 2.3e-3) << "of the states that levels are left in";
  EXPECT_EQ(row.at("converged_share"), 0.77);
  e = evaluation();
  e.loss = e.mean_residual = e.worst_residual = INFINITY;
  row = json_of(e, Bytes{});
  for (const char* key : {"loss", "bits per byte", "residual", "worst_residual"})
    EXPECT_TRUE(row.at(key).is_null()) << key;
}

TEST(Metrics, WhatACheckpointDoesNotCountIsDropped) {
  const testing::Scratch scratch;
  const auto path = scratch / "metrics.jsonl";
  const auto steps = [&] {
    std::string found;
    std::istringstream lines(testing::slurp(path));
    for (std::string line; std::getline(lines, line);) {
      const Json row = Json::parse(line);
      found += row.at("kind").get<std::string>().substr(0, 1) +
               std::to_string(row.at("step").get<int>()) + " ";
    }
    return found;
  };
  Metrics metrics(path);
  StepReport r = report();
  for (r.step = 1; r.step <= 4; ++r.step) metrics.step(r, 1, 1);
  metrics.evaluation(4, "valid", evaluation(), Bytes{}, 1);
  testing::spill(path, testing::slurp(path) + "{\"step\": 5, \"kind\": \"tr");
  Metrics again(path);
  again.rewind(4);
  EXPECT_EQ(steps(), "t1 t2 t3 t4 v4 ");
  again.evaluation(4, "valid", evaluation(), Bytes{}, 1);  // made again: in place of the first
  again.evaluation(4, "test", evaluation(), Bytes{}, 1);
  EXPECT_EQ(steps(), "t1 t2 t3 t4 v4 t4 ");
  again.rewind(3);
  EXPECT_EQ(steps(), "t1 t2 t3 ");
  again.evaluation(4, "valid", evaluation(), Bytes{}, 1);
  again.evaluation(4, "valid", evaluation(), Bytes{}, 1);
  EXPECT_EQ(steps(), "t1 t2 t3 v4 v4 ") << "only those of the step that was gone back to";
}

TEST(Metrics, WhatIsNoneIsNamedAndStays) {
  const testing::Scratch scratch;
  const auto path = scratch / "metrics.jsonl";
  for (const char* broken : {"", "{\"st", "[3]", "{\"kind\": \"train\"}"}) {
    const std::string text = "{\"step\": 9}\n" + std::string(broken) + "\n{\"step\": 4}\n";
    testing::spill(path, text);
    EXPECT_SAYS(testing::error_of([&] { Metrics(path).rewind(3); }),
                "metrics.jsonl:2: '" + printable(broken) + "'; expected a JSON object with step");
    EXPECT_EQ(testing::slurp(path), text);
  }
}

}  // namespace
}  // namespace deq
