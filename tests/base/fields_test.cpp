#include "deq/base/fields.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "tests/base/sample_options.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::Anderson;
using testing::assigned;
using testing::error_of;
using testing::Options;
using testing::Ridge;
using testing::Shape;
using testing::Stop;

std::string refusal(const Assignments& values) {
  return error_of([&] { assigned(values); });
}
std::string keys_of(const std::vector<OptionInfo>& infos) {
  std::vector<std::string> keys;
  for (const OptionInfo& info : infos) keys.push_back(info.key);
  return join(keys, " ");
}

TEST(Fields, PrefixesNestedAndVariantKeys) {
  const std::string common =
      "verbose seed rate title sizes shape max_steps rel_tol backward_max_steps backward_rel_tol "
      "solver";
  EXPECT_EQ(keys_of(selected_options(Options{})), common + " solver_damping");
  EXPECT_EQ(keys_of(list_options(Options{})),
            common + " solver_damping solver_memory solver_guard solver_guard_weight");
  EXPECT_EQ(
      keys_of(selected_options(assigned({{"solver", "anderson"}, {"solver_guard", "cutoff"}}))),
      common + " solver_memory solver_guard");
}

TEST(Fields, AssignsEveryKind) {
  const Options got = assigned({{"verbose", "true"},
                                {"seed", "-9223372036854775808"},
                                {"rate", "-1e-3"},
                                {"title", "a\nb"},
                                {"sizes", "3,-4"},
                                {"shape", "round"},
                                {"max_steps", "7"},
                                {"backward_max_steps", "8"},
                                {"solver", "anderson"},
                                {"solver_memory", "9"},
                                {"solver_guard_weight", "2"}});
  EXPECT_TRUE(got.verbose);
  EXPECT_EQ(got.seed, std::numeric_limits<int64_t>::min());
  EXPECT_EQ(got.rate, -1e-3);
  EXPECT_EQ(got.title, "a\nb");
  EXPECT_EQ(got.sizes, (std::vector<int64_t>{3, -4}));
  EXPECT_EQ(got.shape, Shape::kRound);
  EXPECT_EQ(got.stop.max_steps, 7);
  EXPECT_EQ(got.backward.max_steps, 8);
  const Anderson& solver = std::get<Anderson>(got.solver);
  EXPECT_EQ(solver.memory, 9);
  EXPECT_EQ(std::get<Ridge>(solver.guard).weight, 2);
}

TEST(Fields, NamingTheSelectedAlternativeKeepsItsValues) {
  Options options;
  options.solver = Anderson{.memory = 3};
  assign_options(options, {{"solver", "anderson"}});
  EXPECT_EQ(std::get<Anderson>(options.solver).memory, 3);
  assign_options(options, {{"solver", "picard"}});
  assign_options(options, {{"solver", "anderson"}});
  EXPECT_EQ(std::get<Anderson>(options.solver).memory, 5);
}

/// Alternatives that share keys: `count` means another thing in each, `rate` the same in all.
template <int N>
struct Crowd {
  static constexpr const char* name = N == 9 ? "few" : N == 99 ? "many" : "most";
  int64_t count = N / 3;
  double rate = 0.5;
  static void fields(auto& self, auto&& field) {
    field("count", self.count, N == 9 ? "people" : "heads", between(1, N == 9 ? 9 : 99));
    field("rate", self.rate, "speed", at_least(0));
  }
};
struct Crowds {
  std::variant<Crowd<9>, Crowd<99>, Crowd<100>> crowd;
  static void fields(auto& self, auto&& field) { field("crowd", self.crowd, "who comes"); }
};

TEST(Fields, HelpTellsApartWhatAlternativesHaveUnderOneKey) {
  Crowds options;
  const auto infos = list_options(options);
  ASSERT_EQ(keys_of(infos), "crowd crowd_count crowd_rate");
  EXPECT_EQ(help_of(infos[0], true), "who comes {few, many, most} [few]");
  EXPECT_EQ(help_of(infos[1], true),
            "few: people (in [1, 9]) [3]\nmany, most: heads (in [1, 99]) [33]");
  EXPECT_EQ(help_of(infos[1], false), "few: people (in [1, 9])\nmany, most: heads (in [1, 99])");
  EXPECT_EQ(help_of(infos[2], true), "speed (>= 0) [0.5]");
  assign_options(options, {{"crowd", "many"}, {"crowd_count", "40"}});
  EXPECT_EQ(help_of(list_options(options)[1], true),
            "many: heads (in [1, 99]) [40]\nfew: people (in [1, 9]) [3]\nmost: heads (in [1, 99]) "
            "[33]");
  EXPECT_EQ(help_of(selected_options(options)[1], true), "heads (in [1, 99]) [40]");
}

TEST(Fields, AnUnknownKeyNamesTheNearest) {
  EXPECT_EQ(refusal({{"rel_tal", "1"}}), "unknown option 'rel-tal'; the nearest is 'rel-tol'");
  EXPECT_EQ(refusal({{"solver_memry", "1"}}),
            "unknown option 'solver-memry'; the nearest is 'solver-memory'");
  EXPECT_EQ(refusal({{"qqqqqqqqqq", "1"}}), "unknown option 'qqqqqqqqqq'");
  EXPECT_EQ(refusal({{"", "1"}}), "unknown option ''");
  EXPECT_LT(refusal({{std::string(100000, 'x') + "\n", "1"}}).size(), 200u);
}

TEST(Fields, AKeyOfAnotherAlternativeIsNoOption) {
  EXPECT_EQ(refusal({{"solver_memory", "3"}}), "solver-memory is not an option of solver 'picard'");
  EXPECT_EQ(refusal({{"solver", "anderson"}, {"solver_damping", "1"}}),
            "solver-damping is not an option of solver 'anderson'");
  EXPECT_EQ(
      refusal({{"solver", "anderson"}, {"solver_guard", "cutoff"}, {"solver_guard_weight", "1"}}),
      "solver-guard-weight is not an option of solver-guard 'cutoff'");
  EXPECT_EQ(refusal({{"solver_guard_weight", "1"}}),
            "solver-guard-weight is not an option of solver 'picard'")
      << "not of a choice that is not in force itself";
}

TEST(Fields, TypesAreChecked) {
  EXPECT_EQ(refusal({{"verbose", "yes"}}), "verbose = yes; expected true or false");
  EXPECT_EQ(refusal({{"seed", "1.0"}}), "seed = 1.0; expected a whole number");
  EXPECT_EQ(refusal({{"seed", "1e3"}}), "seed = 1e3; expected a whole number");
  EXPECT_EQ(refusal({{"seed", ""}}), "seed = ; expected a whole number");
  EXPECT_EQ(refusal({{"seed", "9223372036854775808"}}),
            "seed = 9223372036854775808; expected a whole number");
  EXPECT_EQ(refusal({{"rate", "1,5"}}), "rate = 1,5; expected a number");
  EXPECT_EQ(refusal({{"rate", "nan"}}), "rate = nan; expected a number");
  EXPECT_EQ(refusal({{"rate", "inf"}}), "rate = inf; expected a number");
  EXPECT_EQ(refusal({{"rate", "1e999"}}), "rate = 1e999; expected a number");
  EXPECT_EQ(refusal({{"rate", "a\nb"}}), "rate = a\\nb; expected a number");
  EXPECT_EQ(refusal({{"sizes", "1,x"}}), "sizes = 1,x; expected whole numbers separated by commas");
  EXPECT_EQ(refusal({{"sizes", "1,,2"}}),
            "sizes = 1,,2; expected whole numbers separated by commas");
  EXPECT_EQ(refusal({{"shape", "oval"}}), "unknown shape 'oval'; known: flat, round");
  EXPECT_EQ(refusal({{"solver", "newton"}}), "unknown solver 'newton'; known: picard, anderson");
}

TEST(Fields, RangesAreChecked) {
  EXPECT_EQ(refusal({{"max_steps", "0"}}), "max-steps = 0; expected >= 1");
  EXPECT_EQ(refusal({{"backward_max_steps", "-5"}}), "backward-max-steps = -5; expected >= 1");
  EXPECT_EQ(refusal({{"rel_tol", "1"}}), "rel-tol = 1; expected in [0, 1)");
  EXPECT_EQ(refusal({{"solver_damping", "0"}}), "solver-damping = 0; expected in (0, 1]");
  EXPECT_EQ(refusal({{"solver", "anderson"}, {"solver_guard_weight", "0"}}),
            "solver-guard-weight = 0; expected > 0");
  EXPECT_EQ(refusal({{"solver", "anderson"}, {"solver_memory", "1048577"}}),
            "solver-memory = 1048577; expected in [1, 1048576]");  // every digit, not 1.04858e+06
}

TEST(Fields, ARefusalChangesNothing) {
  Options options;
  error_of([&] { assign_options(options, {{"seed", "5"}, {"zzz", "1"}}); });
  EXPECT_EQ(options.seed, 1);
  error_of([&] { assign_options(options, {{"max_steps", "7"}, {"rel_tol", "9"}}); });
  EXPECT_EQ(options.stop.max_steps, 40);
}

TEST(Fields, ValidateChecksWhatCodeHasSet) {
  Options options;
  EXPECT_NO_THROW(validate(options, "Options"));
  options.solver = Anderson{.memory = 0};
  EXPECT_EQ(error_of([&] { validate(options, "Options"); }),
            "Options.solver.memory = 0; expected in [1, 1048576]");
  EXPECT_EQ(error_of([&] { validate(Anderson{.memory = 0}, "Anderson"); }),
            "Anderson.memory = 0; expected in [1, 1048576]");
  EXPECT_EQ(error_of([&] { validate(Stop{.rel_tol = std::nan("")}, "Stop"); }),
            "Stop.rel_tol = nan; expected in [0, 1)");
}

}  // namespace
}  // namespace deq
