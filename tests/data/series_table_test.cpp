// Tables of real values: what a person's CSV holds is read as it stands, and each mistake in it is
// one line that names the place.
#include "deq/data/series_table.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "deq/data/csv.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;

SeriesTable read(const std::string& text, const TableRule& rule = {}) {
  return read_table(std::string_view(text), "table.csv", rule);
}
std::string says(const std::string& text, const TableRule& rule = {}) {
  return error_of([&] { read(text, rule); });
}
double at(const SeriesTable& table, int64_t row, int64_t column) {
  return table.values[row][column].item<double>();
}

TEST(Csv, HasQuotesOtherSeparatorsAndOtherEndsOfLines) {
  for (const std::string text : {"a,\"b, c\"\n1, \"say \"\"2\"\"\" \n\n3,4",
                                 "\xEF\xBB\xBF"
                                 "a,\"b, c\"\r\n1,\"say \"\"2\"\"\"\r\n\r\n3,4\r\n"}) {
    const auto rows = parse_csv(text, "t");
    ASSERT_EQ(rows.size(), 3u) << text;
    EXPECT_EQ(rows[0].cells, (std::vector<std::string>{"a", "b, c"}));
    EXPECT_EQ(rows[1].cells, (std::vector<std::string>{"1", "say \"2\""}));
    EXPECT_EQ(rows[2].cells, (std::vector<std::string>{"3", "4"}));
    EXPECT_EQ(rows[2].line, 4);
  }
  EXPECT_EQ(parse_csv("a;b\n1,5;2\n", "t")[1].cells, (std::vector<std::string>{"1,5", "2"}));
  EXPECT_EQ(parse_csv("a\tb\n1\t\n", "t")[1].cells, (std::vector<std::string>{"1", ""}));
  EXPECT_EQ(parse_csv("a,b\n\"x\ny\",2\nz,3\n", "t")[2].line, 4) << "a cell of two lines";
  EXPECT_SAYS(error_of([] { parse_csv("a,b\n\"x,1\n", "t"); }), "t, line 2: a quote");
  EXPECT_SAYS(error_of([] { parse_csv("a,b\n\"x\"y,1\n", "t"); }), "'y' behind a closing quote");
  for (const std::string cell : {"plain", "with, comma", "say \"x\"", " space"})
    EXPECT_EQ(parse_csv("h,i\n" + csv_cell(cell) + ",1\n", "t")[1].cells[0], cell);
}

TEST(Csv, ABlankLineIsACellWhereThereIsOneColumn) {
  const auto cells = [](const std::string& text) {
    std::string found;
    for (const CsvRow& row : parse_csv(text, "t"))
      found += fmt::format("{}:{}|", row.line, fmt::join(row.cells, "+"));
    return found;
  };
  EXPECT_EQ(cells("\na\n1\n\n \r\n2\n\n\n"), "2:a|3:1|4:|5:|6:2|");
  EXPECT_EQ(cells("a\n1\n\"\"\n\n"), "1:a|2:1|3:|") << "a quoted cell is one at the end too";
  EXPECT_EQ(cells("a,b\n\n1,2\n"), "1:a+b|3:1+2|");
  EXPECT_EQ(cells("a\tb\n\t\n1\t2\n"), "1:a+b|2:+|3:1+2|");
  const SeriesTable table = read("a\n1\n\n3\n");
  ASSERT_EQ(table.values.size(0), 3);
  EXPECT_TRUE(std::isnan(at(table, 1, 0)));
}

TEST(SeriesTable, NumbersAndGaps) {
  const SeriesTable table = read("a,b\n1,-2.5e3\n,+4\nNaN,na\n.5,NULL\n");
  EXPECT_EQ(table.columns, (std::vector<std::string>{"a", "b"}));
  ASSERT_EQ(table.values.sizes(), (at::IntArrayRef{4, 2}));
  EXPECT_EQ(at(table, 0, 1), -2500);
  EXPECT_EQ(at(table, 1, 1), 4);
  EXPECT_EQ(at(table, 3, 0), 0.5);
  for (const auto& [row, column] : {std::pair{1, 0}, {2, 0}, {2, 1}, {3, 1}})
    EXPECT_TRUE(std::isnan(at(table, row, column))) << row << " " << column;
  EXPECT_EQ(table.clock.at(3), "4") << "rows are numbered";
  EXPECT_FALSE(table.clock.known());
  EXPECT_EQ(at(read("a,b\n0.46e-400,-1e-999\n"), 0, 0), 0) << "too small for a double";
  const SeriesTable other = read("a,b,c\n1,x,3\n4,y,6\n", {.columns = {"c", "a"}});
  EXPECT_EQ(other.columns, (std::vector<std::string>{"c", "a"}));
  EXPECT_EQ(at(other, 1, 0), 6) << "in the order that is asked for; b is not looked at";
}

TEST(SeriesTable, FindsTheTimes) {
  const std::string rows = "\n2020-01-01,1\n2020-01-02,2\n";
  for (const char* name : {"Date", "TIME", "timestamp", "datetime", "whenever"})
    EXPECT_EQ(read(name + (",v" + rows)).clock.at(2), "2020-01-03") << name;
  EXPECT_EQ(read("v,time\n1,5\n2,7\n").clock.at(3), "11") << "by name, anywhere, numbers too";
  EXPECT_EQ(read("year,v\n2001,1\n2002,2\n").columns.size(), 2u)
      << "numbers in the first column are values unless it is named";
  const SeriesTable named = read("year,v\n2001,1\n2002,2\n", {.time = "year"});
  EXPECT_EQ(named.columns, (std::vector<std::string>{"v"}));
  EXPECT_EQ(named.clock.at(2), "2003");
  EXPECT_EQ(read("time,v\n1,1\n2,2\n", {.time = "none"}).columns.size(), 2u);
  EXPECT_SAYS(says("a,b\n1,2\n", {.time = "when"}), "no column 'when'; known: a, b");
}

TEST(SeriesTable, TimesGoOnAsTheyWent) {
  const auto behind = [](const std::string& first, const std::string& second) {
    return read("time,v\n" + first + ",1\n" + second + ",2\n").clock.at(3);
  };
  EXPECT_EQ(behind("2020-02-27", "2020-02-28"), "2020-03-01") << "a leap year";
  EXPECT_EQ(behind("2019-12-31T22:30", "2019-12-31T23:00"), "2020-01-01T00:00");
  EXPECT_EQ(behind("2020-01-01 00:00:10", "2020-01-01 00:00:20.0Z"), "2020-01-01T00:00:40");
  EXPECT_EQ(behind("2020-01-01T05:00+01:00", "2020-01-01T05:00Z"), "2020-01-01T07:00");
  EXPECT_EQ(behind("2019-12-01", "2020-01-01"), "2020-03-01") << "months";
  EXPECT_EQ(behind("2019-01-01", "2020-01-01"), "2022-01-01") << "years";
  EXPECT_EQ(behind("0.5", "1"), "2");
  EXPECT_EQ(read("date,v\n2020-01-01,1\n2020-01-02,1\n2020-01-03,1\n2020-01-07,1\n").clock.at(4),
            "2020-01-08")
      << "the usual distance, not the last";
}

TEST(SeriesTable, MonthsThatAreTooShort) {
  const auto goes_on = [](const std::vector<std::string>& dates) {
    std::string text = "time,v\n";
    for (const std::string& date : dates) text += date + ",1\n";
    const SeriesTable table = read(text);
    const auto rows = int64_t(dates.size());
    return table.clock.at(rows) + " " + table.clock.at(rows + 1);
  };
  EXPECT_EQ(goes_on({"2022-12-30", "2023-01-30"}), "2023-02-28 2023-03-30");
  EXPECT_EQ(goes_on({"2022-12-30", "2023-01-30", "2023-02-28"}), "2023-03-30 2023-04-30");
  EXPECT_EQ(goes_on({"2022-11-30", "2022-12-31", "2023-01-31"}), "2023-02-28 2023-03-31");
  EXPECT_EQ(goes_on({"2022-06-30", "2022-09-30"}), "2022-12-31 2023-03-31") << "ends of quarters";
  EXPECT_EQ(goes_on({"2022-02-28", "2023-02-28"}), "2024-02-29 2025-02-28");
  EXPECT_EQ(goes_on({"2023-01-31", "2023-02-01"}), "2023-02-02 2023-02-03") << "days";
}

TEST(SeriesTable, PartsOfSecondsAreWritten) {
  EXPECT_EQ(format_date(*parse_date("2024-05-06T07:08:00.25"), true), "2024-05-06T07:08:00.25");
  EXPECT_EQ(format_date(86399.6, true), "1970-01-01T23:59:59.6");
  EXPECT_EQ(format_date(86399.9999999, true), "1970-01-02T00:00") << "never 24:00";
  const SeriesTable fast = read("time,v\n2024-01-01T00:00:00.1,1\n2024-01-01T00:00:00.2,2\n");
  EXPECT_EQ(fast.clock.at(0), "2024-01-01T00:00:00.1");
  EXPECT_EQ(fast.clock.at(101), "2024-01-01T00:00:10.2") << "the step's rounding does not add up";
}

TEST(SeriesTable, DatesThatThereAreNot) {
  for (const char* text : {"2020-02-30", "2021-02-29", "2020-13-01", "2020-1-1", "20200101", "x",
                           "2020-01-01T24:00", "2020-01-01T12:60", "2020-01-01T12:00+1",
                           "2020-01-01T12:00 ", "-020-01-01", "2020-01-01T12:00-15:00"})
    EXPECT_FALSE(parse_date(text)) << text;
  EXPECT_EQ(*parse_date("1970-01-02T01:00"), 86400 + 3600);
  EXPECT_EQ(*parse_date("1969-12-31"), -86400);
  EXPECT_EQ(format_date(-1, true), "1969-12-31T23:59:59");
}

TEST(SeriesTable, EachMistakeIsALineThatNamesThePlace) {
  const std::string good = "time,load\n1,5\n2,6\n";
  EXPECT_SAYS(says(good + "3,lots\n"),
              "table.csv, line 4, column 'load': 'lots'; expected a finite number");
  for (const char* value : {"inf", "-Infinity", "1e999", "1.5x", "0x10", "--1", "+-1"})
    EXPECT_SAYS(says(good + "3," + value + "\n"),
                std::string("'") + value + "'; expected a finite");
  EXPECT_SAYS(says(good + "3\n"), "line 4: 1 cells; expected 2");
  EXPECT_SAYS(says(good + "\n3,5,6\n"), "line 5: 3 cells; expected 2");
  EXPECT_SAYS(says(good + "2,5\n"), "line 4, column 'time': '2'; expected a time after '2'");
  EXPECT_SAYS(says(good + "1.5,5\n"), "'1.5'; expected a time after '2'");
  EXPECT_SAYS(says(good + ",5\n"), "column 'time': ''; expected a time");
  EXPECT_SAYS(says("time,v\n2020-01-01,1\n2,2\n"), "'2'; expected a date such as");
  EXPECT_SAYS(says("time,v\nnow,1\n"), "'now'; expected a time: a date");
  EXPECT_SAYS(says("a,a\n1,2\n"), "two columns 'a'");
  EXPECT_SAYS(says("a,\n1,2\n"), "column 2 has no name");
  EXPECT_SAYS(says("\na,Temp\xE9rature\n1,2\n"), "table.csv, line 2: the name of column 2, 'Temp");
  EXPECT_SAYS(says("a,Temp\xE9rature\n1,2\n"), "is not UTF-8");
  for (const std::string name : {"\"two\nlines\"", "a\x7f", "a\x01"})
    EXPECT_SAYS(says(name + ",b\n1,2\n"), "line 1: the name of column 1, ");
  EXPECT_EQ(read("Temp\xC3\xA9rature,b\n1,2\n").columns.size(), 2u);
  EXPECT_SAYS(says("1,2\n3,4\n"), "line 1: numbers alone; expected the columns' names");
  EXPECT_SAYS(says("a,b\n"), "expected the columns' names and rows");
  EXPECT_SAYS(says(""), "0 lines");
  EXPECT_SAYS(says("time\n1\n2\n"), "no column of values");
  EXPECT_SAYS(says(good, {.columns = {"pressure"}}), "no column 'pressure'; known: time, load");
  EXPECT_SAYS(says(good, {.columns = {"time"}}), "column 'time' holds the times");
  EXPECT_SAYS(says(good, {.columns = {"load", "load"}}), "column 'load' twice");
  EXPECT_SAYS(error_of([] { read_table(std::filesystem::path("/nowhere.csv")); }), "nowhere.csv");
}

}  // namespace
}  // namespace deq
