// train, eval and generate as a user runs them, and bad input.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>
#include <thread>

#include "deq/files/safetensors.h"
#include "tests/base/scratch.h"
#include "tests/cli/command.h"
#include "tests/cli/small_options.h"
#include "tests/cli/trained_run.h"

namespace deq {
namespace {

namespace fs = std::filesystem;
using testing::expect_one_error_line;
using testing::kCopy;
using testing::kSmall;
using testing::losses;
using testing::on_text;
using testing::run_deq;
using testing::Scratch;
using testing::start;
using testing::train_words;
using testing::write_text;

class TrainedRun : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    scratch_ = new Scratch;
    text_ = write_text(*scratch_);
    const testing::Output made = run_deq("train " + folder() + on_text(text_) + " 2>&1");
    ASSERT_EQ(made.exit_code, 0) << made.text;
    EXPECT_EQ(made.text.find('\r'), std::string::npos) << "a progress bar for no terminal";
  }
  static void TearDownTestSuite() { delete scratch_; }
  static std::string folder() { return (*scratch_ / "run").string(); }

  static Scratch* scratch_;
  static std::string text_;
};
Scratch* TrainedRun::scratch_ = nullptr;
std::string TrainedRun::text_;

TEST_F(TrainedRun, HoldsWhatItSays) {
  for (const char* name :
       {"config.toml", "metrics.jsonl", "vocab.txt", "last.safetensors", "best.safetensors"}) {
    EXPECT_TRUE(fs::exists(fs::path(folder()) / name)) << name;
  }
  const std::string config = testing::slurp(fs::path(folder()) / "config.toml");
  EXPECT_NE(config.find("cell-width = 16"), std::string::npos);
  EXPECT_NE(config.find("solver-scope = \"causal\""), std::string::npos);
}

TEST_F(TrainedRun, EvaluationReportsItsResidualAndNoLeak) {
  const auto row = nlohmann::json::parse(run_deq("eval " + folder() + " --json --check-leak").text);
  EXPECT_EQ(row.at("leak").get<double>(), 0);
  EXPECT_GT(row.at("residual").get<double>(), 0);
  EXPECT_GT(row.at("evaluations").get<double>(), 1);
  const auto more = nlohmann::json::parse(
      run_deq("eval " + folder() + " --json --max-steps 60 --rel-tol 1e-5").text);
  EXPECT_GT(more.at("evaluations").get<double>(), row.at("evaluations").get<double>());
  EXPECT_EQ(run_deq("eval " + folder() + " --max-steps 1 --require-converged 2>&1").exit_code, 1);
}

TEST_F(TrainedRun, EvaluationShowsBeginningsWhereAskedFor) {
  const auto row =
      nlohmann::json::parse(run_deq("eval " + folder() + " --json --beginnings 9").text);
  const auto& groups = row.at("beginnings");  // of eval-length 12
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_EQ(groups[2].at("first"), 9);
  EXPECT_EQ(groups[2].at("last"), 12);
  const double first = groups[0].at("loss").get<double>();
  EXPECT_GT(first, 0);
  const std::string text = run_deq("eval " + folder() + " --beginnings 9").text;
  EXPECT_SAYS(text, fmt::format("beginnings: bits per byte {:.4g} at 1, ", first / std::log(2)));
  EXPECT_SAYS(text, " at 9-12 of 9 texts without history");
  EXPECT_FALSE(
      nlohmann::json::parse(run_deq("eval " + folder() + " --json").text).contains("beginnings"));
  EXPECT_NE(run_deq("eval " + folder() + " --beginnings 0 2>&1").exit_code, 0);
}

TEST_F(TrainedRun, AFinishedRunThatIsResumedSaysNothingTwice) {
  const fs::path copy = *scratch_ / "resumed";
  fs::copy(folder(), copy);
  ASSERT_EQ(run_deq("train " + copy.string() + " --resume --data " + text_ + " 2>&1").exit_code, 0);
  EXPECT_EQ(losses(copy), losses(folder()));
  // Its last validation, at no multiple of eval-every, is not counted again either.
  const auto state = [](const fs::path& run) {
    const auto file = load_tensors(run / "last.safetensors");
    return file.metadata.at("since_best") + " at " + file.metadata.at("evaluated_at");
  };
  EXPECT_EQ(state(copy), state(folder()));
}

TEST_F(TrainedRun, WeightsAloneAreNotResumedFrom) {
  const fs::path copy = *scratch_ / "weights-alone";
  fs::create_directory(copy);
  for (const char* name : {"config.toml", "vocab.txt", "best.safetensors"})
    fs::copy(fs::path(folder()) / name, copy / name);
  const std::string weights = testing::slurp(copy / "best.safetensors");
  expect_one_error_line("train " + copy.string() + " --resume --data " + text_,
                        "has best.safetensors alone");
  EXPECT_EQ(testing::slurp(copy / "best.safetensors"), weights);
}

TEST_F(TrainedRun, WhatIsLeftOfARunIsNotWrittenOver) {
  const fs::path copy = *scratch_ / "left-over";
  fs::copy(folder(), copy);
  fs::remove(copy / "config.toml");
  for (const char* name : {"vocab.txt", "metrics.jsonl", "last.safetensors", "best.safetensors"}) {
    const std::string held = testing::slurp(copy / name);
    expect_one_error_line("train " + copy.string() + on_text(text_), "holds " + std::string(name));
    EXPECT_EQ(testing::slurp(copy / name), held);
    fs::remove(copy / name);
  }
}

TEST_F(TrainedRun, TrainingGoesOnWhereNobodyReadsItsLines) {
  const fs::path run = *scratch_ / "unread";
  const std::string command = testing::limited("train " + run.string() + on_text(text_));
  ASSERT_EQ(std::system(("(" + command + ") 2>/dev/null | head -n 1 >/dev/null").c_str()), 0);
  EXPECT_EQ(losses(run), losses(folder()));
  EXPECT_EQ(load_tensors(run / "last.safetensors").metadata.at("step"), "40");
}

TEST_F(TrainedRun, GeneratesTheSameTextBySeed) {
  const std::string command =
      "generate " + folder() + " --prompt 'the cat' --tokens 30 --seed 3 --quiet";
  const testing::Output first = run_deq(command);
  EXPECT_EQ(first.exit_code, 0);
  EXPECT_EQ(first.text.rfind("the cat", 0), 0u);
  EXPECT_GE(first.text.size(), 37u);
  EXPECT_EQ(run_deq(command).text, first.text);
}

TEST_F(TrainedRun, ASwitchMayStandInFrontOfTheRun) {
  const std::string rest = folder() + " --prompt 'the cat' --tokens 12 --quiet";
  const auto alone = run_deq("generate --greedy " + rest);
  EXPECT_EQ(alone.exit_code, 0) << alone.text;
  EXPECT_EQ(alone.text, run_deq("generate --greedy true " + rest).text);
  EXPECT_NE(alone.text, run_deq("generate --greedy false " + rest).text);
}

TEST_F(TrainedRun, ATextGoesOnFromItsSavedEquilibria) {
  const std::string command = "generate " + folder() + " --greedy --quiet",
                    cache = (*scratch_ / "equilibria").string();
  const std::string whole = run_deq(command + " --prompt 'the cat' --tokens 20").text;
  const std::string first =
      run_deq(command + " --prompt 'the cat' --tokens 12 --save-cache " + cache).text;
  const std::string second = run_deq(command + " --tokens 8 --cache " + cache).text;
  ASSERT_GT(whole.size(), 7u + 20);
  ASSERT_GT(first.size(), 7u + 12);
  EXPECT_EQ(first.substr(0, first.size() - 1) + second, whole);
  const std::string bytes = testing::slurp(cache);
  const std::string bad[] = {" --cache nowhere",
                             " --cache " + folder() + "/best.safetensors",
                             " --cache " + text_,
                             " --prompt a --prompt b --cache " + cache,
                             " --save-cache nowhere/x --tokens 1",
                             " --weight-type bfloat16 --cache " + cache};
  for (const std::string& arguments : bad)
    expect_one_error_line("generate " + folder() + arguments, "");
  EXPECT_EQ(testing::slurp(cache), bytes);
}

TEST_F(TrainedRun, WeightsCanBeReadRounded) {
  const auto evaluated = [&](const std::string& flags) {
    return nlohmann::json::parse(run_deq("eval " + folder() + " --json" + flags).text);
  };
  const auto exact = evaluated(""), rounded = evaluated(" --weight-type bfloat16");
  EXPECT_EQ(exact.at("weight_type"), "exact");
  EXPECT_EQ(rounded.at("weight_type"), "bfloat16");
  const double loss = exact.at("loss");
  EXPECT_NE(rounded.at("loss"), loss);
  EXPECT_NEAR(rounded.at("loss"), loss, 0.01 * loss);
  const std::string command = "generate " + folder() + " --greedy --weight-type bfloat16",
                    cache = (*scratch_ / "rounded").string();
  const auto text = run_deq(command + " --prompt a --tokens 9 --save-cache " + cache + " 2>&1");
  EXPECT_SAYS(text.text, "weights rounded to bfloat16");
  EXPECT_EQ(run_deq(command + " --tokens 3 --quiet --cache " + cache).exit_code, 0);
  expect_one_error_line("generate " + folder() + " --cache " + cache, "weights");
  expect_one_error_line("generate " + folder() + " --weight-type half", "bfloat16");
}

// In pieces of eval-length: the equilibria that are left are those of as many positions as are
// seen.
TEST_F(TrainedRun, ALongPromptIsReadInPieces) {
  std::string prompt;
  for (int i = 0; i < 40; ++i) prompt += "the cat sat. ";
  const std::string cache = (*scratch_ / "long").string();
  const auto held = [&](const std::string& flags) {
    const auto made = run_deq("generate " + folder() + " --greedy --tokens 9 --save-cache " +
                              cache + flags + " --prompt '" + prompt + "' 2>&1");
    EXPECT_EQ(made.exit_code, 0) << made.text;
    return load_tensors(cache).tensors.at("level0.k").size(1);
  };
  EXPECT_EQ(held(""), 12 + 64 - 1);  // eval-length and eval-history
  EXPECT_EQ(held(" --history 30"), 30);
  EXPECT_EQ(held(" --history 1"), 1);
}

TEST_F(TrainedRun, WhatCannotBeDrawnSaysWhatCan) {
  expect_one_error_line("generate " + folder() + " --temperature 0", "--greedy");
  const std::string command = "generate " + folder() + " --prompt 'the cat' --tokens 9 --quiet";
  EXPECT_EQ(run_deq(command + " --temperature 1e-308").text, run_deq(command + " --greedy").text);
}

/// The number in front of " evaluations each" in what is said of a text.
double evaluations_in(const std::string& statistics) {
  const size_t end = statistics.find(" evaluations each");
  EXPECT_NE(end, std::string::npos) << statistics;
  return std::stod(statistics.substr(statistics.rfind(' ', end - 1)));
}

// Each with its own seed, and as many evaluations as it takes alone.
TEST_F(TrainedRun, ATextSideBySideIsTheTextAlone) {
  const std::string command = "generate " + folder() + " --tokens 40";
  const char* prompts[] = {"the cat", "a", "on the mat the", "cat"};
  std::string apart, together, flags;
  double evaluations = 0;
  for (size_t i = 0; i < 4; ++i) {
    const std::string prompt = std::string(" --prompt '") + prompts[i] + "'";
    const std::string own = command + prompt + " --seed " + std::to_string(11 + i);
    apart += (i > 0 ? "\n" : "") + run_deq(own + " --quiet").text;
    evaluations += evaluations_in(run_deq(own + " 2>&1 >/dev/null").text) / 4;
    flags += prompt;
  }
  EXPECT_EQ(run_deq(command + flags + " --seed 11 --quiet").text, apart);
  const std::string statistics = run_deq(command + flags + " --seed 11 2>&1 >/dev/null").text;
  EXPECT_SAYS(statistics, "160 tokens");
  EXPECT_NEAR(evaluations_in(statistics), evaluations, 0.11);
}

TEST_F(TrainedRun, SeveralPromptsAreContinuedSideBySide) {
  const std::string command = "generate " + folder() + " --greedy --quiet --tokens 9";
  std::string apart;
  for (const char* prompt : {"the cat", "a", "on the"})
    apart += (apart.empty() ? "" : "\n") + run_deq(command + " --prompt '" + prompt + "'").text;
  EXPECT_GT(apart.size(), 3u * 9);
  EXPECT_EQ(run_deq(command + " --prompt 'the cat' --prompt a --prompt 'on the'").text, apart);
}

TEST_F(TrainedRun, BadInputIsOneLineAndHarmsNothing) {
  const std::string before = testing::slurp(fs::path(folder()) / "last.safetensors");
  const fs::path binary = *scratch_ / "binary.txt";
  testing::spill(binary, std::string("ab\0cd", 5));
  const std::string bad[] = {
      "train " + folder() + " --data " + text_,                               // holds a run already
      "train " + folder() + "x --data nowhere.txt",                           // no such text
      "train " + folder() + "y",                                              // no data
      "train " + folder() + "z --data " + text_ + " --task bytes --batch 0",  // out of range
      "train " + folder() + "z --data " + text_ + " --task bytes --solver newton",
      "train " + folder() + "z --data " + text_ + " --task bytes --solver picard --solver-memory 3",
      "train " + folder() + "z --data " + text_ + " --task bytes --cell-heads 3 --cell-width 16",
      "train " + folder() + "z --data " + binary.string() + " --task characters",
      "train nowhere --resume",
      "train " + folder() + "z --data " + text_ + " --task bytes --device tpu",
      "eval nowhere",
      "eval " + folder() + " --device cuda:4096",
      "eval " + folder() + " --split dev",
      "eval " + folder() + " --checkpoint first",
      "eval " + folder() + " --rel-tol -1",
      "generate " + folder() + " --temperature 0",
      "generate " + folder() + " --tokens none",
  };
  for (const std::string& arguments : bad) {
    const testing::Output output = run_deq(arguments + " 2>&1 >/dev/null");
    EXPECT_NE(output.exit_code, 0) << arguments;
    EXPECT_EQ(output.text.rfind("error: ", 0), 0u) << arguments << "\n" << output.text;
    EXPECT_EQ(std::count(output.text.begin(), output.text.end(), '\n'), 1) << arguments << "\n"
                                                                           << output.text;
  }
  EXPECT_EQ(testing::slurp(fs::path(folder()) / "last.safetensors"), before);
}

TEST_F(TrainedRun, DamagedFilesAreNamed) {
  const fs::path copy = *scratch_ / "copy";
  const auto damaged = [&](const char* name, const std::function<void(std::string&)>& damage) {
    fs::remove_all(copy);
    fs::copy(folder(), copy);
    std::string bytes = testing::slurp(copy / name);
    damage(bytes);
    testing::spill(copy / name, bytes);
    const testing::Output output = run_deq("eval " + copy.string() + " 2>&1 >/dev/null");
    EXPECT_EQ(output.exit_code, 1) << name;
    EXPECT_EQ(std::count(output.text.begin(), output.text.end(), '\n'), 1) << output.text;
    return output.text;
  };
  damaged("best.safetensors", [](std::string& bytes) { bytes.resize(bytes.size() / 2); });
  damaged("best.safetensors", [](std::string& bytes) { bytes[bytes.size() - 9] ^= 4; });
  damaged("best.safetensors", [](std::string& bytes) { bytes[3] = '\xff'; });
  damaged("vocab.txt", [](std::string& bytes) { bytes.resize(bytes.size() / 2); });
  const std::string unknown =
      damaged("config.toml", [](std::string& bytes) { bytes += "cell-widht = 3\n"; });
  EXPECT_NE(unknown.find("cell-width"), std::string::npos) << unknown;
  damaged("config.toml", [](std::string& bytes) { bytes += "cell-width = = 3\n"; });
  EXPECT_SAYS(damaged("config.toml", [](std::string& bytes) { bytes.clear(); }),
              "config.toml: empty; expected the options of a run");
  const auto of_the_data = [](std::string& bytes) { bytes.resize(bytes.find("cell = ")); };
  EXPECT_SAYS(damaged("config.toml", of_the_data), "config.toml: no cell; expected all options");
}

TEST_F(TrainedRun, AFolderInUseIsAnError) {
  const std::string busy = (*scratch_ / "busy").string();
  std::vector<std::string> words = train_words(busy, on_text(text_));
  *(std::find(words.begin(), words.end(), "--steps") + 1) = "100000";
  const pid_t child = start(words);
  while (!fs::exists(fs::path(busy) / "metrics.jsonl") && waitpid(child, nullptr, WNOHANG) == 0)
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  const testing::Output second = run_deq("train " + busy + " --resume 2>&1 >/dev/null");
  EXPECT_EQ(second.exit_code, 1);
  EXPECT_NE(second.text.find("in use"), std::string::npos) << second.text;
  // A polite signal: a checkpoint is written, and the exit code says that it was interrupted.
  kill(child, SIGTERM);
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 130);
  EXPECT_TRUE(fs::exists(fs::path(busy) / "last.safetensors"));
}

}  // namespace
}  // namespace deq
