// deq measure layers: what each option does, and what its rows say.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "deq/measure/layer_workloads.h"
#include "tests/base/scratch.h"
#include "tests/cli/command.h"

namespace deq {
namespace {

using testing::expect_one_error_line;
using testing::run_deq;
using testing::Scratch;
using Json = nlohmann::json;

Json rows_of(const std::string& arguments) {
  const auto result = run_deq("measure layers --json " + arguments + " 2>&1");
  EXPECT_EQ(result.exit_code, 0) << result.text;
  return Json::parse(result.text);
}

TEST(MeasureLayers, SaysWhatEachPartOfAQuadraticProgramTakes) {
  const Json rows = rows_of("--only qp-50 --batch 3 --repeats 1");
  ASSERT_EQ(rows.size(), 4u);
  std::vector<std::string> parts;
  for (const Json& row : rows) {
    parts.push_back(row["part"]);
    EXPECT_EQ(row["workload"], "qp-50");
    EXPECT_EQ(row["samples"], 3);
    EXPECT_GT(row["milliseconds"], 0);
    EXPECT_LT(row["milliseconds"], 10000);
    EXPECT_LE(row["error"], 1e-9);
    EXPECT_EQ(row["converged"], 1);
    EXPECT_TRUE(row["evaluations"].is_null());
  }
  EXPECT_EQ(parts, (std::vector<std::string>{"cold", "warm", "cold, factors kept", "backward"}));
  EXPECT_GT(rows[0]["steps"], 2);
  EXPECT_EQ(rows[0]["factorisations"], rows[0]["steps"].get<double>() + 2);
  EXPECT_EQ(rows[1]["steps"], 0);
  EXPECT_EQ(rows[1]["factorisations"], 1);
  EXPECT_TRUE(rows[3]["factorisations"].is_null());
}

/// Every workload once: what converges, and how well its condition holds.
TEST(MeasureLayers, AllWorkloadsRun) {
  const Json rows = rows_of("--batch 2 --repeats 1");
  std::set<std::string> names;
  for (const Json& row : rows) {
    const std::string name = row["workload"], part = row["part"];
    names.insert(name);
    EXPECT_GT(row["milliseconds"], 0) << name;
    if (!row["converged"].is_null() && !(name.starts_with("maxsat-9x9") && part == "backward")) {
      EXPECT_EQ(row["converged"], 1) << name << ", " << part;
    }
    if (name.starts_with("contact") || name.ends_with("denoising") || name == "sudoku") {
      EXPECT_LE(row["error"], 1e-9) << name;
    }
    if (name == "ode-stiff") {
      EXPECT_LE(row["error"], 1e-6) << part;
      EXPECT_GT(row["factorisations"], 50) << part;
      EXPECT_LE(row["evaluations"], 3000) << part;
    }
    if (name == "ode-mixed") {
      EXPECT_EQ(row["samples"], part == "mu = 50 alone" ? 1 : 2);
    }
  }
  EXPECT_EQ(names, (std::set<std::string>{"qp-10",
                                          "qp-50",
                                          "qp-100",
                                          "sudoku",
                                          "denoising",
                                          "sparse-denoising",
                                          "maxsat-sweep",
                                          "maxsat-9x9-1e-3",
                                          "maxsat-9x9-1e-4",
                                          "maxsat-parity",
                                          "contact-5",
                                          "contact-5-joint",
                                          "contact-5-bodies",
                                          "contact-20",
                                          "world-1000",
                                          "world-1",
                                          "ode-network",
                                          "ode-mixed",
                                          "ode-stiff",
                                          "mondeq"}));
}

TEST(MeasureLayers, TheTableHasTheSameRows) {
  const auto result = run_deq("measure layers --only contact-5 --batch 4 --repeats 1 2>&1");
  ASSERT_EQ(result.exit_code, 0) << result.text;
  EXPECT_EQ(result.text.substr(0, result.text.find('\n')),
            "| workload | part | samples | ms | error | converged | steps | evaluations | "
            "factorisations | note |");
  EXPECT_NE(result.text.find("| contact-5-joint | warm | 4 | "), std::string::npos) << result.text;
  EXPECT_NE(result.text.find(" | 100.0% | 1.0 | – | 1.00 |  |"), std::string::npos) << result.text;
}

TEST(MeasureLayers, TheLeastOfSoManyRunsCounts) {
  int64_t calls = 0;
  volatile double sum = 0;
  const double least = least_milliseconds(5, [&] {
    const int64_t work = ++calls == 4 ? 1 : 3000000;
    for (int64_t i = 0; i < work; ++i) sum = sum + double(i);
  });
  EXPECT_EQ(calls, 5);
  EXPECT_LT(least, 1);
  const auto seconds = [](int64_t repeats) {
    const double begin = processor_seconds();
    measure_layers({.only = "maxsat-sweep", .repeats = repeats});
    return processor_seconds() - begin;
  };
  EXPECT_GT(seconds(41), 2 * seconds(1));
}

std::string idx(std::vector<uint8_t> sizes, size_t numbers, const std::function<int(size_t)>& at) {
  std::string bytes{'\0', '\0', '\x08', char(sizes.size())};
  for (const uint8_t size : sizes) bytes += {'\0', '\0', '\0', char(size)};
  for (size_t i = 0; i < numbers; ++i) bytes += char(at(i));
  return bytes;
}

TEST(MeasureLayers, TrainsOnAFolderOfImages) {
  const Scratch scratch;
  for (const auto& [set, count] : {std::pair{"train", 20}, std::pair{"t10k", 6}}) {
    const std::string path = (scratch / set).string();
    testing::spill(path + "-images-idx3-ubyte",
                   idx({uint8_t(count), 28, 28}, size_t(count) * 784,
                       [](size_t i) { return int(i / 784 % 10 * 20 + i % 7); }));
    testing::spill(path + "-labels-idx1-ubyte",
                   idx({uint8_t(count)}, size_t(count), [](size_t i) { return int(i % 10); }));
  }
  const std::string data = " --data " + scratch.folder().string();
  const Json rows = rows_of("--only mondeq --batch 10 --repeats 1 --epochs 2" + data);
  ASSERT_EQ(rows.size(), 6u) << rows;
  EXPECT_EQ(rows[0]["part"], "training step, 1e-02");
  EXPECT_EQ(rows[2]["part"], "epoch 1, 1e-02");
  EXPECT_EQ(rows[5]["part"], "epoch 2, 1e-04");
  EXPECT_EQ(rows[2]["samples"], 20);
  EXPECT_EQ(rows[0]["samples"], 10);
  EXPECT_LE(rows[2]["error"], 1e-2);
  EXPECT_LE(rows[5]["error"], 1e-4);
  EXPECT_GT(rows[5]["steps"], rows[3]["steps"]);
  EXPECT_NE(rows[3]["note"].get<std::string>().find("% of the test wrong"), std::string::npos);
  testing::spill((scratch / "t10k-labels-idx1-ubyte").string(),
                 idx({6}, 6, [](size_t) { return 10; }));
  expect_one_error_line("measure layers --only mondeq --batch 10 --repeats 1" + data,
                        "expected a class below 10 for each of 6 images");
}

TEST(MeasureLayers, BadInputIsOneLine) {
  expect_one_error_line("measure layers --only qpp",
                        "only = 'qpp'; expected the beginning of one of: qp-10, qp-50");
  expect_one_error_line("measure layers --repeats 0", "repeats");
  expect_one_error_line("measure layers --batch -1", "batch");
  expect_one_error_line("measure layers --epochs 0", "epochs");
  expect_one_error_line("measure layers --only mondeq --data nowhere", "nowhere");
}

}  // namespace
}  // namespace deq
