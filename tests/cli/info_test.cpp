#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "tests/cli/command.h"

namespace deq {
namespace {

using testing::run_deq;

TEST(Command, PrintsHelpAndVersion) {
  const auto help = run_deq("help");
  EXPECT_EQ(help.exit_code, 0);
  EXPECT_NE(help.text.find("  info "), std::string::npos) << help.text;
  EXPECT_EQ(run_deq("--help").text, help.text);
  const auto version = run_deq("--version");
  EXPECT_EQ(version.exit_code, 0);
  EXPECT_EQ(version.text.substr(0, 4), "deq ");
}

TEST(Command, WithoutArgumentsIsAUsageError) {
  const auto run = run_deq("2>/dev/null");
  EXPECT_EQ(run.exit_code, 2);
  EXPECT_EQ(run.text, "");  // help goes to stderr then
}

TEST(Command, NamesWhatItKnows) {
  const auto unknown = run_deq("inof 2>&1");
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_EQ(unknown.text.find("error: unknown command 'inof'; known: "), 0u) << unknown.text;
  EXPECT_NE(unknown.text.find("did you mean 'info'?"), std::string::npos) << unknown.text;
}

TEST(Command, HelpTellsAlternativesApart) {
  const std::string help = run_deq("train --help").text;
  const size_t flag = help.find("--solver-memory ");
  ASSERT_NE(flag, std::string::npos) << help;
  const std::string entry = help.substr(flag, help.find("  --", flag) - flag);
  EXPECT_NE(entry.find("anderson: past iterates"), std::string::npos) << entry;
  EXPECT_NE(entry.find("broyden: secant pairs kept"), std::string::npos) << entry;
  EXPECT_NE(entry.find("(in [1, 1024]) [20]"), std::string::npos) << entry;
}

TEST(Command, AFullDiskUnderStdoutIsAFailure) {
  for (const std::string arguments : {"info", "info --json", "--version", "train --help"}) {
    const auto full = run_deq(arguments + " 2>&1 >/dev/full");
    EXPECT_EQ(full.exit_code, 1) << arguments;
    EXPECT_EQ(full.text.find("error: cannot write"), 0u) << arguments << "\n" << full.text;
    EXPECT_EQ(full.text.find('\n'), full.text.size() - 1) << full.text;
  }
}

TEST(Info, RejectsUnknownFlags) {
  const auto unknown = run_deq("info --jsno 2>&1");
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_EQ(unknown.text.find("error: "), 0u) << unknown.text;
  EXPECT_NE(unknown.text.find("--jsno"), std::string::npos) << unknown.text;
  EXPECT_EQ(run_deq("info --help").exit_code, 0);
}

TEST(Info, DescribesTheMachine) {
  const auto run = run_deq("info --json");
  ASSERT_EQ(run.exit_code, 0);
  const auto info = nlohmann::json::parse(run.text);
  EXPECT_GE(info.at("threads").get<int>(), 1);
  EXPECT_NE(info.at("simd").at("libtorch"), "unknown");
  EXPECT_NE(info.at("simd").at("deq"), "");
  EXPECT_NE(info.at("blas").at("kind"), "unknown");
}

TEST(Info, ThreadsFollowTheEnvironment) {
  ::setenv("OMP_NUM_THREADS", "3", 1);
  const auto info = nlohmann::json::parse(run_deq("info --json").text);
  ::unsetenv("OMP_NUM_THREADS");
  EXPECT_EQ(info.at("threads"), 3);
}

// The build's own doing: see cmake/openblas.cmake.
TEST(Info, LoadsTheOpenMpBuildWhereItIsInstalled) {
  if (std::string(DEQ_OPENBLAS_DIR).empty()) GTEST_SKIP() << "no OpenMP build of OpenBLAS here";
  const auto info = nlohmann::json::parse(run_deq("info --json").text);
  EXPECT_EQ(info.at("blas").at("kind"), "OpenBLAS (OpenMP)");
  EXPECT_EQ(info.at("blas").at("warning"), "");
}

}  // namespace
}  // namespace deq
