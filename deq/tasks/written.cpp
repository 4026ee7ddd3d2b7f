#include "deq/tasks/written.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "deq/base/printable.h"
#include "deq/base/utf8.h"
#include "deq/tasks/lines.h"

namespace deq {
namespace {

constexpr std::string_view kSpace = " \t\v\f\r";
constexpr int64_t kNamed = 16;  // symbols of a vocabulary that a message names

size_t character_at(std::string_view text, size_t at) {
  return std::max<size_t>(1, utf8_length(text, at));
}

/// Whether symbols can stand side by side without a space.
bool are_characters(const Vocabulary& vocabulary) {
  for (int64_t id = 0; id < vocabulary.size(); ++id) {
    const std::string& token = vocabulary.token(id);
    if (character_at(token, 0) != token.size()) return false;
  }
  return true;
}

std::string known_symbols(const Vocabulary& vocabulary) {
  std::vector<std::string> known;
  for (int64_t id = 0; id < std::min(vocabulary.size(), kNamed); ++id)
    known.push_back(printable(vocabulary.token(id)));
  if (vocabulary.size() > kNamed) known.emplace_back("...");
  return join(known, " ");
}

[[noreturn]] void reject(std::string_view symbol, const Vocabulary& vocabulary,
                         const std::string& where) {
  throw Error(fmt::format("{}: unknown symbol '{}'; known: {}", where, printable(symbol),
                          known_symbols(vocabulary)));
}

/// The lines of grids, each of which is one with its rows joined.
bool are_joined(const LineBlock& block) {
  return block.lines.front().find('/') != std::string_view::npos;
}

std::vector<std::string_view> parts_of(std::string_view line, char between) {
  std::vector<std::string_view> parts;
  for (size_t first = 0; first <= line.size();) {
    const size_t end = std::min(line.find(between, first), line.size());
    parts.push_back(line.substr(first, end - first));
    first = end + 1;
  }
  return parts;
}

/// (H, W); row i stands in line `line` + i, or in `line` where they are `joined`.
at::Tensor read_grid(const std::vector<std::string_view>& rows, bool joined, int64_t line,
                     const std::string& source, const Vocabulary& vocabulary) {
  std::vector<int64_t> ids;
  size_t width = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::string where = at_line(source, joined ? line : line + int64_t(i));
    const auto row = read_symbols(rows[i], vocabulary, where);
    if (i == 0) width = row.size();
    DEQ_CHECK(row.size() == width && width > 0, "{}: a row of {} symbols; expected {}", where,
              row.size(), width > 0 ? std::to_string(width) : "one at least");
    ids.insert(ids.end(), row.begin(), row.end());
  }
  return at::tensor(ids, at::kLong).view({int64_t(rows.size()), int64_t(width)});
}

}  // namespace

std::string at_line(const std::string& source, int64_t line) {
  return fmt::format("{}, line {}", printable(source, 400), line);
}

std::vector<LineBlock> line_blocks(std::string_view text) {
  std::vector<LineBlock> found;
  bool open = false;
  for_each_line(text, [&](std::string_view line, int64_t number) {
    const bool blank = is_blank(line);
    if (!blank) {
      if (!open) found.push_back({{}, number});
      found.back().lines.push_back(line.substr(0, line.find_last_not_of(kSpace) + 1));
    }
    open = !blank;
  });
  return found;
}

std::vector<int64_t> read_symbols(std::string_view text, const Vocabulary& vocabulary,
                                  const std::string& where) {
  std::vector<int64_t> ids;
  const bool characters = are_characters(vocabulary);
  const auto read_word = [&](std::string_view word, int64_t) {
    if (const auto id = vocabulary.find(word)) {
      ids.push_back(*id);
      return;
    }
    if (!characters) reject(word, vocabulary, where);
    for (size_t at = 0, size = 0; at < word.size(); at += size) {
      size = character_at(word, at);
      const auto id = vocabulary.find(word.substr(at, size));
      if (!id) reject(word.substr(at, size), vocabulary, where);
      ids.push_back(*id);
    }
  };
  for_each_token(Unit::Symbol, text, read_word);
  return ids;
}

std::vector<WrittenProblem> read_problems(std::string_view text, const std::string& source,
                                          const Vocabulary& vocabulary, int64_t dimensions) {
  std::vector<WrittenProblem> problems;
  for (const LineBlock& block : line_blocks(text)) {
    const bool joined = dimensions == 2 && are_joined(block);
    if (dimensions == 2 && !joined) {
      problems.push_back(
          {read_grid(block.lines, false, block.line, source, vocabulary), block.line});
      continue;
    }
    int64_t line = block.line;
    for (const std::string_view each : block.lines) {
      const at::Tensor tokens =
          joined ? read_grid(parts_of(each, '/'), true, line, source, vocabulary)
                 : at::tensor(read_symbols(each, vocabulary, at_line(source, line)), at::kLong);
      problems.push_back({tokens, line++});
    }
  }
  DEQ_CHECK(!problems.empty(), "{}: no problem; expected one at least", printable(source, 400));
  return problems;
}

std::string write_symbols(const at::Tensor& tokens, const Vocabulary& vocabulary,
                          const Joined& joined) {
  const at::Tensor rows = (tokens.dim() == 1 ? tokens.unsqueeze(0) : tokens).contiguous();
  const int64_t* id = rows.data_ptr<int64_t>();
  std::string text;
  for (int64_t row = 0; row < rows.size(0); ++row) {
    if (row > 0) text += joined.rows;
    for (int64_t column = 0; column < rows.size(1); ++column, ++id) {
      if (column > 0) text += joined.symbols;
      text += *id < 0 ? "?" : vocabulary.token(*id);
    }
  }
  return text;
}

}  // namespace deq
