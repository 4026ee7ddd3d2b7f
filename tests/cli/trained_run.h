// A small run on a small text, and what its metrics say.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "tests/base/child.h"
#include "tests/base/scratch.h"
#include "tests/cli/command.h"
#include "tests/cli/small_options.h"
#include "tests/train/small_run.h"

namespace deq::testing {

inline std::string write_text(const Scratch& scratch) {
  const std::filesystem::path path = scratch / "text.txt";
  spill(path, small_text());
  return path.string();
}

/// The options of a small run on the text.
inline std::string on_text(const std::string& text) {
  return " --data " + text + " --task bytes" + kSmall;
}

/// step and kind -> loss, of every line of a run's metrics.
inline std::map<std::string, double> losses(const std::filesystem::path& run) {
  std::map<std::string, double> found;
  std::istringstream lines(slurp(run / "metrics.jsonl"));
  for (std::string line; std::getline(lines, line);) {
    const auto row = nlohmann::json::parse(line);
    const std::string key =
        row.at("kind").get<std::string>() + " " + std::to_string(row.at("step").get<int>());
    EXPECT_TRUE(found.emplace(key, row.at("loss").get<double>()).second) << "twice: " << key;
  }
  return found;
}

/// The words of `deq train FOLDER OPTIONS`.
inline std::vector<std::string> train_words(const std::string& folder, const std::string& options) {
  std::vector<std::string> words{"deq", "train", folder};
  std::istringstream in(options);
  for (std::string word; in >> word;) words.push_back(word);
  return words;
}

/// The process of a `deq` with these words, its lines unread.
inline pid_t start(const std::vector<std::string>& arguments) {
  const pid_t child = fork();
  if (child != 0) return child;
  std::vector<char*> argv;
  for (const std::string& argument : arguments) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  end_in_time();
  if (!freopen("/dev/null", "w", stdout)) _exit(127);
  execv(DEQ_BINARY, argv.data());
  _exit(127);
}

}  // namespace deq::testing
