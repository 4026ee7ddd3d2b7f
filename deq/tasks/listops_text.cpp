#include "deq/tasks/listops_text.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <map>

#include "deq/base/printable.h"
#include "deq/files/files.h"
#include "deq/tasks/lines.h"
#include "deq/tasks/listops.h"

namespace deq {
namespace {

using Ids = std::vector<int64_t>;

constexpr uint64_t kMaxFile = uint64_t(1) << 30;
constexpr double kMostPlaces = double(int64_t{1} << 29);  // of a split: 8 GiB with its targets

/// Symbols of an expression and the columns at which they stand, from 1.
struct Placed {
  Ids symbols;
  std::vector<size_t> columns;
  size_t end = 0;  ///< behind the last
};

std::string at_column(const std::string& where, size_t column) {
  return fmt::format("{}, column {}", where, column);
}

/// The text from column `first` on, without parentheses.
Placed read_placed(std::string_view text, size_t first, const Vocabulary& vocabulary,
                   const std::string& where) {
  Placed placed{.end = first + text.size()};
  for_each_token(Unit::Symbol, text, [&](std::string_view symbol, int64_t offset) {
    if (symbol == "(" || symbol == ")") return;
    const size_t column = first + size_t(offset);
    const auto id = vocabulary.find(symbol);
    DEQ_CHECK(id && *id != ListOps::Blank,
              "{}: unknown symbol '{}'; known: 0 to 9 [MIN [MAX [MED [SM ]",
              at_column(where, column), printable(symbol));
    placed.symbols.push_back(*id);
    placed.columns.push_back(column);
  });
  return placed;
}

ListOpsValues evaluate_placed(const Placed& placed, const std::string& where) {
  return evaluate_listops(placed.symbols, [&](size_t symbol) {
    return at_column(where, symbol < placed.columns.size() ? placed.columns[symbol] : placed.end);
  });
}

}  // namespace

Split listops_split(const std::vector<Ids>& expressions, int64_t places, bool every) {
  const auto count = int64_t(expressions.size());
  DEQ_CHECK(double(count) * double(places) <= kMostPlaces,
            "listops: {} expressions with room for the longest, of {} symbols, are too many; "
            "expected {:.3g} symbols at most",
            count, places, kMostPlaces);
  Split split{.tokens = at::full({count, places}, int64_t{ListOps::Blank}, at::kLong),
              .targets = at::full({count, places}, -1, at::kLong),
              .answer = kEveryPosition,
              .extents = at::empty({count, 1}, at::kLong)};
  for (int64_t s = 0; s < count; ++s) {
    const Ids& expression = expressions[size_t(s)];
    const ListOpsValues values = evaluate_listops(expression);
    std::copy(expression.begin(), expression.end(), split.tokens.data_ptr<int64_t>() + s * places);
    int64_t* target = split.targets.data_ptr<int64_t>() + s * places;
    if (every) std::copy(values.at.begin(), values.at.end(), target);
    target[expression.size() - 1] = values.value;
    split.extents.data_ptr<int64_t>()[s] = int64_t(expression.size());
  }
  return split;
}

Corpus load_listops(const std::filesystem::path& path, bool every) {
  const std::string text = read_file(path, kMaxFile);
  const std::string name = path.string();
  const Vocabulary inputs = ListOps().vocabularies().first;
  std::vector<Ids> all;
  std::map<int64_t, std::vector<Ids>> by_depth;
  size_t longest = 0;
  int64_t longest_at = 0;
  check_text(text, name);
  for_each_line(text, [&](std::string_view line, int64_t number) {
    if (is_blank(line)) return;
    const std::string where = at_line(name, number);
    const size_t tab = line.find('\t');
    DEQ_CHECK(tab == 1 && line[0] >= '0' && line[0] <= '9',
              "{}: '{}'; expected a value, 0 to 9, a tab and an expression", where,
              printable(std::string(line.substr(0, 40)), 80));
    const Placed placed = read_placed(line.substr(tab + 1), tab + 2, inputs, where);
    const ListOpsValues found = evaluate_placed(placed, where);
    DEQ_CHECK(found.value == line[0] - '0', "{}: an expression of value {}; the file has {}", where,
              found.value, line[0]);
    all.push_back(placed.symbols);
    if (placed.symbols.size() > longest) longest_at = number;
    longest = std::max(longest, placed.symbols.size());
    DEQ_CHECK(double(all.size()) * double(longest) <= kMostPlaces,
              "{}: {} expressions with room for the longest so far, of {} symbols in line {}, are "
              "too many; expected {:.3g} symbols at most",
              where, all.size(), longest, longest_at, kMostPlaces);
    by_depth[found.depth].push_back(placed.symbols);
  });
  DEQ_CHECK(!all.empty(), "'{}' has no expressions; expected lines of a value, a tab and one",
            printable(name, 400));
  const auto split_of = [every](const std::vector<Ids>& expressions) {
    size_t longest = 0;
    for (const Ids& each : expressions) longest = std::max(longest, each.size());
    return listops_split(expressions, int64_t(longest), every);
  };
  Corpus corpus;
  corpus.train = corpus.valid = corpus.test = split_of(all);
  for (auto& [depth, expressions] : by_depth) {
    corpus.more.push_back({std::to_string(depth),
                           [split_of, held = std::move(expressions)] { return split_of(held); }});
  }
  return corpus;
}

std::vector<WrittenProblem> read_listops(const std::string& text, const std::string& source,
                                         const Vocabulary& inputs) {
  std::vector<WrittenProblem> read;
  for (const LineBlock& block : line_blocks(text)) {
    int64_t line = block.line;
    for (const std::string_view each : block.lines) {
      const std::string where = at_line(source, line);
      const Placed placed = read_placed(each, 1, inputs, where);
      evaluate_placed(placed, where);
      read.push_back({at::tensor(placed.symbols, at::kLong), line++});
    }
  }
  DEQ_CHECK(!read.empty(), "{}: no expression; expected one at least", printable(source, 400));
  return read;
}

}  // namespace deq
