// deq bench as a user runs it: what its object holds, and bad input.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "tests/base/scratch.h"
#include "tests/cli/command.h"
#include "tests/train/small_run.h"

namespace deq {
namespace {

using testing::expect_one_error_line;
using testing::run_deq;
using testing::Scratch;

constexpr const char* kSmall =
    " --task bytes --cell-width 16 --cell-heads 2 --cell-inner 24 --init-std 0.3 --batch 2 "
    "--length "
    "12 --history 12 --steps 2 --eval-every 2 --save-every 2 --eval-lanes 4 --eval-length 12 "
    "--threads 1";

/// A trained run of a few steps, and its text.
struct Trained {
  Scratch scratch;
  std::string text = (scratch / "text.txt").string(), run = (scratch / "run").string();

  explicit Trained(const std::string& more = "") {
    testing::spill(text, testing::small_text());
    const auto trained = run_deq("train " + run + " --data " + text + kSmall + more + " 2>&1");
    EXPECT_EQ(trained.exit_code, 0) << trained.text;
  }
};

TEST(Bench, PrintsOneObject) {
  const Trained trained;
  const auto result = run_deq("bench " + trained.run + " --runs 2 --decode 20 --rel-tol 1e-2 " +
                              "--gradient-rel-tol 1e-2 --max-steps 60 --gradient-max-steps 60");
  ASSERT_EQ(result.exit_code, 0) << result.text;
  const auto row = nlohmann::json::parse(result.text);
  for (const char* seconds : {"evaluation_s", "forward_s", "backward_s", "step_s",
                              "decode_s_per_token", "resolve_s_per_token"}) {
    EXPECT_GT(row.at(seconds).get<double>(), 0) << seconds;
  }
  EXPECT_LT(row.at("evaluation_s").get<double>(), row.at("forward_s").get<double>());
  EXPECT_LT(row.at("backward_s").get<double>(), row.at("step_s").get<double>());
  EXPECT_GT(row.at("forward_evaluations").get<int>(), 1);
  EXPECT_GT(row.at("backward_evaluations").get<int>(), 1);
  EXPECT_LE(row.at("forward_residual").get<double>(), 1e-2);
  EXPECT_EQ(row.at("forward_converged").get<double>(), 1);
  EXPECT_GT(row.at("product_gflops").get<double>(), 0);
  EXPECT_GT(row.at("evaluation_gflops").get<double>(), 0);
  EXPECT_GT(row.at("peak_mb").get<double>(), 1);
  EXPECT_NEAR(row.at("loss").get<double>(), 5.5, 1.5);  // two steps from log 256
}

TEST(Bench, TheSameTokensGiveTheSameLoss) {
  const Trained trained;
  const auto loss = [&](const std::string& flags) {
    return nlohmann::json::parse(run_deq("bench " + trained.run + " --runs 1 " + flags).text)
        .at("loss")
        .get<double>();
  };
  EXPECT_EQ(loss("--seed 3"), loss("--seed 3"));
  EXPECT_NE(loss("--seed 3"), loss("--seed 4"));
  EXPECT_EQ(loss("--data " + trained.text), loss("--seed 4 --data " + trained.text));
}

TEST(Bench, BadInputIsOneLine) {
  const Trained trained;
  expect_one_error_line("bench " + trained.run + " --length 100000 --data " + trained.text,
                        "expected 400002, batch times (2 length + 1)");
  expect_one_error_line("bench " + trained.run + " --runs 0", "runs");
  expect_one_error_line("bench " + trained.run + " --weight-type bfloat16", "--decode");
  const Trained levels(" --depth 2");
  expect_one_error_line("bench " + levels.run, "explicit network of depth 2");
}

}  // namespace
}  // namespace deq
