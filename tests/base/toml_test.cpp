#include "deq/base/toml.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "deq/base/fields.h"
#include "tests/base/sample_options.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::assigned;
using testing::error_of;
using testing::Options;

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

std::string value_of(const std::string& value) { return parse_toml("a = " + value, "f").at("a"); }

TEST(Toml, ReadsWhatPeopleWrite) {
  const Assignments got = parse_toml(
      "\ufeff# run\r\nrel-tol = 1e-4  # tight\n\n  max_steps=1_000\r\nsizes = [ 1, # one\n 2, "
      "]\n\"title\" = 'x'",
      "f");
  EXPECT_EQ(got,
            (Assignments{
                {"rel_tol", "0.0001"}, {"max_steps", "1000"}, {"sizes", "[1,2]"}, {"title", "x"}}));
  EXPECT_TRUE(parse_toml("", "f").empty());
  EXPECT_TRUE(parse_toml("\n # only a comment", "f").empty());
}

TEST(Toml, ReadsEverySpellingOfANumber) {
  const std::pair<const char*, const char*> cases[] = {
      {"+1", "1"},          {"-0", "0"},
      {"0xFf_00", "65280"}, {"0o17", "15"},
      {"0b1_01", "5"},      {"1.0", "1.0"},
      {"-0.0", "-0.0"},     {"6.25e-2", "0.0625"},
      {"1E3", "1000.0"},    {"1_0.2_5e+0_1", "102.5"},
      {"0e0", "0.0"},       {"+inf", "inf"},
      {"-inf", "-inf"},     {"nan", "nan"},
      {"true", "true"},     {"false", "false"},
      {"[]", "[]"},         {"[\n]", "[]"},
      {"[1.5,]", "[1.5]"},  {"-9223372036854775808", "-9223372036854775808"}};
  for (const auto& [text, expected] : cases) EXPECT_EQ(value_of(text), expected) << text;
}

TEST(Toml, ReadsEverySpellingOfAString) {
  const std::pair<const char*, const char*> cases[] = {
      {R"("")", ""},
      {R"('\n"')", "\\n\""},
      {R"("a\b\t\n\f\r\"\\")", "a\b\t\n\f\r\"\\"},
      {"\"\\u00fc\\U0001F600\\u20ac\"", "\u00fc\U0001F600\u20ac"},
      {"\"\"\"\"\"\"", ""},
      {"\"\"\"\na\r\nb\"\"\"", "a\nb"},
      {"'''\na''b\\'''", "a''b\\"},
      {"\"\"\"a\"\"b\"\"\"\"\"", "a\"\"b\"\""},
      {"\"\"\"a \\  \n\n  b\\\r\n\"\"\"", "a b"}};
  for (const auto& [text, expected] : cases) EXPECT_EQ(value_of(text), expected) << text;
}

TEST(Toml, RefusesWhatIsNoToml) {
  const char* values[] = {"",
                          "007",
                          "1__0",
                          "_1",
                          "1_",
                          "1.",
                          ".5",
                          "1e",
                          "1e+",
                          "0x",
                          "0xg",
                          "+0x1",
                          "0X1",
                          "- 1",
                          "1 2",
                          "1e999",
                          "9223372036854775808",
                          "True",
                          "yes",
                          "infinity",
                          "2024-01-01",
                          "07:32:00",
                          "{a = 1}",
                          "[1",
                          "[1 2]",
                          "[,]",
                          "[1,,2]",
                          "[[1]]",
                          "['a']",
                          "\"",
                          "'",
                          "\"a\nb\"",
                          "\"\\x41\"",
                          "\"\\ud800\"",
                          "\"\\U00110000\"",
                          "\"\\u00f\"",
                          "\"\\u+0ff\"",
                          "\"\x01\"",
                          "\"\x7f\"",
                          "\"\"\"a\"\"",
                          "'''\r'''",
                          "\"a\\  \"",
                          "1\r",
                          "1 # \x01",
                          "1\u0170"};
  for (const char* value : values) {
    EXPECT_SAYS(error_of([&] { value_of(value); }), "f:") << value;
  }
  for (const char* text : {"a", "a 1", "= 1", "a == 1", "\u00fc = 1", "a.b = 1", "a = 1 b = 2",
                           "[%\nb = 1", "[a]", "[[a]]", "\"\"\"a\"\"\" = 1", "\r"}) {
    EXPECT_SAYS(error_of([&] { parse_toml(text, "f"); }), "f:1: ") << text;
  }
}

TEST(Toml, ARefusalNamesLineKeyAndExpectation) {
  const auto refused = [](const std::string& text) {
    return error_of([&] { parse_toml(text, "f"); });
  };
  EXPECT_EQ(refused("\n[solver]\nx = 1\n"),
            "f:2: tables are not options; these are flat, `key = value`");
  EXPECT_EQ(refused("a.b = 1\n"),
            "f:1: dotted keys are not options; these are flat, `key = value`");
  EXPECT_EQ(refused("rel_tol = 1\nrel-tol = 2\n"), "f:2: rel-tol is set twice");
  EXPECT_EQ(
      refused("a = 2024-01-01\n"),
      "f:1: a = '2024-01-01'; expected a \"string\", a number, true, false or a list of numbers");
  EXPECT_EQ(refused("a = \"\"\"\n\n\"\"\"\nb = \n"), "f:4: b has no value");
  EXPECT_EQ(refused("a = 1 2\n"), "f:1: expected the end of the line after a, got '2'");
  EXPECT_EQ(refused("a = 1\nb = \"\xff\"\n"), "f:2: not UTF-8 text");
  EXPECT_EQ(refused("\"a\\nb\" 1\n"), "f:1: expected = after a\\nb, got '1'");
  EXPECT_EQ(refused("a = [1\n2]\n"), "f:2: a: expected , or ] in the list, got '2]'");
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

TEST(Toml, AnOptionIsNamedByItsPlace) {
  const auto refused = [](const std::string& text) {
    return error_of([&] {
      Options options;
      assign_toml(options, text, "c.toml");
    });
  };
  const std::pair<const char*, const char*> cases[] = {
      {"\n\nsede = 1\n", "c.toml:3: unknown option 'sede'; the nearest is 'seed'"},
      {"title = \"\"\"\n\n\"\"\"\nseed = 'a'\n", "c.toml:4: seed = a; expected a whole number"},
      {"# ü\r\nrate = [1]\r\n", "c.toml:2: rate = [1]; expected a number"},
      {"verbose =\n", "c.toml:1: verbose has no value"},
      {"\xEF\xBB\xBFseed = true", "c.toml:1: seed = true; expected a whole number"}};
  for (const auto& [text, expected] : cases) EXPECT_EQ(refused(text), expected);

  Options options;
  Places places{{"seed", "here"}};
  EXPECT_EQ(error_of([&] {
              assign_options(options, {{"rate", "x"}}, places);
            }),
            "rate = x; expected a number");
}

TEST(Toml, TextThatNoFileCanHoldIsRefusedWhenWritten) {
  Options options;
  options.title = "\xff";
  EXPECT_SAYS(error_of([&] { to_toml(selected_options(options)); }), "is not UTF-8");
}

}  // namespace
}  // namespace deq
