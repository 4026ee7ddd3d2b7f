#include <gtest/gtest.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>
#include <string>

#include "deq/distributed/rendezvous.h"
#include "deq/files/files.h"
#include "tests/base/scratch.h"
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
  EXPECT_EQ(version.text, "deq " DEQ_VERSION "\n");
  EXPECT_EQ(run_deq("version").text, version.text);
  // What stands in the files of a release must not lag behind the build.
  const std::string citation = read_file(DEQ_SOURCE_DIR "/CITATION.cff", 1 << 20);
  EXPECT_NE(citation.find("\nversion: " DEQ_VERSION "\n"), std::string::npos) << citation;
  const std::string changes = read_file(DEQ_SOURCE_DIR "/CHANGELOG.md", 1 << 20);
  EXPECT_EQ(changes.find("# Changelog\n\n## " DEQ_VERSION), 0u) << changes.substr(0, 80);
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
  const std::string help = run_deq("train --help-all").text;
  const size_t flag = help.find("--solver-memory ");
  ASSERT_NE(flag, std::string::npos) << help;
  const std::string entry = help.substr(flag, help.find("  --", flag) - flag);
  EXPECT_NE(entry.find("anderson: past iterates"), std::string::npos) << entry;
  EXPECT_NE(entry.find("broyden: secant pairs kept"), std::string::npos) << entry;
  EXPECT_NE(entry.find("(in [1, 1024]) [20]"), std::string::npos) << entry;
}

/// The flags that a help text lists: "  --name", "  -h,--name".
std::set<std::string> flags_in(const std::string& help) {
  static const std::regex entry("(^|\n)  (?:-h,)?--([a-z0-9-]+)");
  std::set<std::string> flags;
  for (std::sregex_iterator found(help.begin(), help.end(), entry), end; found != end; ++found)
    flags.insert((*found)[2]);
  return flags;
}

TEST(Command, HelpIsOneScreenAndHelpAllIsComplete) {
  for (const std::string command : {"train", "eval", "generate"}) {
    SCOPED_TRACE(command);
    const auto usual = run_deq(command + " --help"), all = run_deq(command + " --help-all");
    EXPECT_EQ(usual.exit_code, 0);
    EXPECT_EQ(all.exit_code, 0);
    EXPECT_LE(std::count(usual.text.begin(), usual.text.end(), '\n'), 50) << usual.text;
    const auto shown = flags_in(usual.text), known = flags_in(all.text);
    EXPECT_GE(shown.size(), 14u) << usual.text;
    EXPECT_GT(known.size(), shown.size());
    for (const std::string& flag : shown) EXPECT_TRUE(known.contains(flag)) << flag;
    EXPECT_TRUE(shown.contains("help-all"));
    EXPECT_SAYS(usual.text,
                fmt::format("All {} of them: deq {} --help-all", known.size(), command));
  }
  // Every name that is called usual is one.
  EXPECT_TRUE(flags_in(run_deq("train --help").text).contains("rate"));
  EXPECT_TRUE(flags_in(run_deq("eval --help").text).contains("eval-length"));
  EXPECT_TRUE(flags_in(run_deq("generate --help").text).contains("top-p"));
}

TEST(Command, HelpShowsNumbersAsNumbers) {
  const std::string help = run_deq("train --help-all").text;
  EXPECT_SAYS(help, "--batch INT ");
  EXPECT_SAYS(help, "--rel-tol NUMBER ");
  EXPECT_SAYS(help, "--data TEXT ");
  EXPECT_SAYS(help, "--solver NAME ");
  EXPECT_SAYS(help, "--tied [true|false] ");
}

// Every option of a run stands under what it is about, in the order of its configuration.
TEST(Command, HelpAllIsInGroups) {
  const std::string help = run_deq("train --help-all").text;
  size_t before = 0;
  for (const std::string group :
       {"data", "cell", "model", "solver", "gradient", "training", "run", "evaluation"}) {
    const size_t heading = help.find("\n" + group + ":\n");
    ASSERT_NE(heading, std::string::npos) << group << "\n" << help;
    EXPECT_GT(heading, before) << group;
    before = heading;
  }
  const auto under = [&](const std::string& flag) {
    const size_t place = help.find("\n  --" + flag + " ");
    EXPECT_NE(place, std::string::npos) << flag;
    const size_t end = help.rfind(":\n", place), start = help.rfind('\n', end - 1) + 1;
    return help.substr(start, end - start);
  };
  EXPECT_EQ(under("task"), "data");
  EXPECT_EQ(under("cell-width"), "cell");
  EXPECT_EQ(under("solver-memory"), "solver");
  EXPECT_EQ(under("gradient-max-steps"), "gradient");
  EXPECT_EQ(under("clip"), "training");
  EXPECT_EQ(under("threads"), "run");
  EXPECT_EQ(under("eval-lanes"), "evaluation");
  EXPECT_EQ(under("config"), "Options");
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
  EXPECT_EQ(info.at("several_processes"), can_join());
  const std::string text = run_deq("info").text;
  EXPECT_NE(text.find(can_join() ? "processes several, through c10d and Gloo"
                                 : "processes one: this build has no c10d"),
            text.npos)
      << text;
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
