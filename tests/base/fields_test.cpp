#include "deq/base/fields.h"

#include <gtest/gtest.h>

#include <bit>
#include <random>

#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;

enum class Shape { kFlat, kRound };

}  // namespace

template <>
struct Names<Shape> {
  static constexpr const char* values[] = {"flat", "round"};
};

namespace {

struct Picard {
  static constexpr const char* name = "picard";
  double damping = 1.0;
  static void fields(auto& self, auto&& field) {
    field("damping", self.damping, "share of the new state", left_open(0, 1));
  }
};

struct Ridge {
  static constexpr const char* name = "ridge";
  double weight = 1e-3;
  static void fields(auto& self, auto&& field) { field("weight", self.weight, "", above(0)); }
};
struct Cutoff {
  static constexpr const char* name = "cutoff";
  static void fields(auto&, auto&&) {}
};

struct Anderson {
  static constexpr const char* name = "anderson";
  int64_t memory = 5;
  std::variant<Ridge, Cutoff> guard{};
  static void fields(auto& self, auto&& field) {
    field("memory", self.memory, "past iterates", between(1, 1 << 20));
    field("guard", self.guard, "against a singular system");
  }
};

struct Stop {
  int64_t max_steps = 40;
  double rel_tol = 1e-3;
  static void fields(auto& self, auto&& field) {
    field("max_steps", self.max_steps, "steps", at_least(1));
    field("rel_tol", self.rel_tol, "tolerance", half_open(0, 1));
  }
};

struct Options {
  bool verbose = false;
  int64_t seed = 1;
  double rate = 0.5;
  std::string title = "plain";
  std::vector<int64_t> sizes = {1, 2};
  Shape shape = Shape::kFlat;
  Stop stop;      // keys without a prefix
  Stop backward;  // keys with one
  std::variant<Picard, Anderson> solver;
  static void fields(auto& self, auto&& field) {
    field("verbose", self.verbose, "say more");
    field("seed", self.seed);
    field("rate", self.rate);
    field("title", self.title);
    field("sizes", self.sizes);
    field("shape", self.shape);
    field("", self.stop);
    field("backward", self.backward);
    field("solver", self.solver, "method");
  }
};

Options assigned(const Assignments& values) {
  Options options;
  assign_options(options, values);
  return options;
}
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

/// The options that a file written from `options` reads back to.
Options through_toml(const Options& options) {
  return assigned(parse_toml(to_toml(selected_options(options)), "config.toml"));
}

TEST(Toml, EveryStringRoundTrips) {
  std::string every;
  for (int c = 1; c < 128; ++c) every += char(c);
  const std::string texts[] = {"",
                               "two\nlines",
                               "\"quoted\"",
                               "'single'",
                               "\"\"\"",
                               "back\\slash\\n",
                               every,
                               std::string("zero\0byte", 9),
                               "gr\u00fc\u00df \U0001F600",
                               "# no comment",
                               "1",
                               "true",
                               "[1]",
                               "= [table]",
                               " spaces ",
                               "\r\n",
                               "\u2028"};
  for (const std::string& text : texts) {
    Options options;
    options.title = text;
    EXPECT_EQ(through_toml(options).title, text);
  }
}

TEST(Toml, EveryDoubleRoundTripsToTheBit) {
  std::mt19937_64 random(1);
  std::vector<double> values = {0.0,
                                -0.0,
                                1.0,
                                -3.0,
                                0.1,
                                1e22,
                                1e23,
                                1e16,
                                123456789.0,
                                5e-324,
                                std::numeric_limits<double>::max(),
                                std::numeric_limits<double>::min(),
                                1.0 / 3};
  for (int i = 0; i < 2000; ++i) {
    const double value = std::bit_cast<double>(random());
    if (std::isfinite(value)) values.push_back(value);
  }
  for (const double value : values) {
    Options options;
    options.rate = value;
    EXPECT_EQ(std::bit_cast<uint64_t>(through_toml(options).rate), std::bit_cast<uint64_t>(value))
        << value;
  }
}

TEST(Toml, EveryOtherValueRoundTrips) {
  const Options options = assigned({{"verbose", "true"},
                                    {"seed", "9223372036854775807"},
                                    {"sizes", "-1"},
                                    {"shape", "round"},
                                    {"solver", "anderson"},
                                    {"solver_guard", "cutoff"}});
  EXPECT_EQ(to_toml(selected_options(through_toml(options))), to_toml(selected_options(options)));
  for (const std::vector<int64_t>& sizes : {std::vector<int64_t>{}, {7}, {1, -2, 3}}) {
    Options listed;
    listed.sizes = sizes;
    EXPECT_EQ(through_toml(listed).sizes, sizes);
  }
}

TEST(Toml, ReadsWhatPeopleWrite) {
  const Assignments got = parse_toml(
      "# run\nrel-tol = 1e-4  # tight\nmax_steps = 1_000\nsizes = [ 1,\n 2, ]\ntitle = 'x'\n", "f");
  EXPECT_EQ(got,
            (Assignments{
                {"rel_tol", "0.0001"}, {"max_steps", "1000"}, {"sizes", "[1,2]"}, {"title", "x"}}));
}

TEST(Toml, RefusesWhatIsNoFlatList) {
  const auto refused = [](const std::string& text) {
    return error_of([&] { parse_toml(text, "f"); });
  };
  EXPECT_EQ(refused("[solver]\nx = 1\n"),
            "f: [solver] is a table; options are flat, `key = value`");
  EXPECT_EQ(refused("a.b = 1\n"), "f: [a] is a table; options are flat, `key = value`");
  EXPECT_EQ(refused("rel_tol = 1\nrel-tol = 2\n"), "f: rel_tol is set twice");
  EXPECT_EQ(refused("a = 2024-01-01\n"), "f: a is no string, number, boolean or list of numbers");
  EXPECT_EQ(refused("a = [[1]]\n"), "f: a is no string, number, boolean or list of numbers");
  EXPECT_EQ(refused("[[a]]\n"), "f: a is no string, number, boolean or list of numbers");
  EXPECT_SAYS(refused("a = 1\nb = \n"), "f:2: ");
  EXPECT_SAYS(refused("a = 1\na = 2\n"), "f:2: ");
  EXPECT_SAYS(refused("a = \"\xff\"\n"), "f:1: ");
  EXPECT_SAYS(refused("\"a\\nb\" = 2024-01-01\n"), "f: a\\nb is no string");
}

TEST(Toml, AListIsNoNumberAndARealNoWholeNumber) {
  const auto refused = [](const std::string& text) {
    return error_of([&] { assigned(parse_toml(text, "f")); });
  };
  EXPECT_EQ(refused("seed = [1]\n"), "seed = [1]; expected a whole number");
  EXPECT_EQ(refused("verbose = [true]\n"), "verbose = [true]; expected true or false");
  EXPECT_EQ(refused("seed = 1.0\n"), "seed = 1.0; expected a whole number");
  EXPECT_EQ(refused("sizes = [1.5]\n"),
            "sizes = [1.5]; expected whole numbers separated by commas");
  EXPECT_EQ(refused("rate = nan\n"), "rate = nan; expected a number");
  EXPECT_EQ(refused("verbose = 1\n"), "verbose = 1; expected true or false");
}

TEST(Toml, TextThatNoFileCanHoldIsRefusedWhenWritten) {
  Options options;
  options.title = "\xff";
  EXPECT_SAYS(error_of([&] { to_toml(selected_options(options)); }), "is not UTF-8");
}

}  // namespace
}  // namespace deq
