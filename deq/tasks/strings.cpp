#include "deq/tasks/strings.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "deq/base/printable.h"
#include "deq/tasks/in_blanks.h"

namespace deq {
namespace {

using Ids = std::vector<int64_t>;

constexpr const char* kAlphabet = "0123456789abcdefghijklmnopqrstuvwxyz";

/// Behind the symbols of the alphabet.
BlankSymbols blanks_of(const Strings& task) { return {task.symbols + 1, task.symbols}; }
int64_t operator_of(const Strings& task) { return task.symbols + 2; }

Ids answer_of(const Strings& task, const Ids& problem) {
  Ids answer = problem;
  switch (task.operation) {
    case StringOperation::Copy:
      return answer;
    case StringOperation::Reverse:
      std::reverse(answer.begin(), answer.end());
      return answer;
    case StringOperation::Sort:
      std::sort(answer.begin(), answer.end());
      return answer;
    case StringOperation::Add:
    case StringOperation::Multiply:
      break;
  }
  const auto between = std::find(problem.begin(), problem.end(), operator_of(task));
  const Ids a(problem.begin(), between), b(between + 1, problem.end());
  return task.operation == StringOperation::Add ? sum_of(a, b, task.symbols)
                                                : product_of(a, b, task.symbols);
}

Ids draw(const Strings& task, int64_t length, std::mt19937_64& random) {
  Ids problem;
  for (int64_t part = 0; part < 1 + task.of_numbers(); ++part) {
    if (part > 0) problem.push_back(operator_of(task));
    for (int64_t i = 0; i < length; ++i) problem.push_back(below(task.symbols, random));
  }
  return problem;
}

/// Problem s has min + s mod (max - min + 1) symbols or digits.
Split strings(const Strings& task, int64_t count, int64_t min, int64_t max,
              std::mt19937_64& random) {
  std::vector<Stated> stated;
  for (int64_t s = 0; s < count; ++s) {
    Ids problem = draw(task, min + s % (max - min + 1), random);
    Ids answer = answer_of(task, problem);
    stated.push_back({std::move(problem), std::move(answer)});
  }
  return answered_in_blanks(stated, blanks_of(task));
}

ProblemMaker maker(const Strings& task) {
  std::vector<std::string> alphabet;
  for (int64_t i = 0; i < task.symbols; ++i) alphabet.emplace_back(1, kAlphabet[i]);
  std::vector<std::string> inputs = alphabet;
  inputs.insert(inputs.end(), {"_", "="});
  if (task.of_numbers()) inputs.emplace_back(task.operation == StringOperation::Add ? "+" : "*");
  const auto whole = [task](int64_t count, int64_t length, std::mt19937_64& random) {
    return strings(task, count, length, length, random);
  };
  const auto training = [task](int64_t count, int64_t length, std::mt19937_64& random) {
    return strings(task, count, task.min_length, length, random);
  };
  return {Strings::name, symbols(std::move(inputs)), symbols(std::move(alphabet)), whole, training};
}

/// As a model reads it, of what a person wrote: numbers of one length, the last digit first.
Ids as_read(const Strings& task, Ids written, const std::string& where) {
  const BlankSymbols blanks = blanks_of(task);
  while (!written.empty() && written.back() == blanks.blank) written.pop_back();
  if (!written.empty() && written.back() == blanks.end) written.pop_back();
  DEQ_CHECK(!written.empty(), "{}: nothing before the =; expected symbols", where);
  for (const int64_t id : {blanks.blank, blanks.end})
    DEQ_CHECK(std::count(written.begin(), written.end(), id) == 0,
              "{}: a '{}' within the string; expected it behind", where,
              id == blanks.end ? "=" : "_");
  if (!task.of_numbers()) return written;
  const auto between = std::find(written.begin(), written.end(), operator_of(task));
  DEQ_CHECK(std::count(written.begin(), written.end(), operator_of(task)) == 1 &&
                between != written.begin() && between + 1 != written.end(),
            "{}: not two numbers; expected a {} b", where,
            task.operation == StringOperation::Add ? "+" : "*");
  Ids a(written.begin(), between), b(between + 1, written.end());
  const size_t digits = std::max(a.size(), b.size());
  for (Ids* number : {&a, &b}) {
    std::reverse(number->begin(), number->end());
    number->resize(digits, 0);
  }
  a.push_back(operator_of(task));
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace

std::vector<int64_t> sum_of(const Ids& a, const Ids& b, int64_t base) {
  Ids sum;
  int64_t carry = 0;
  for (size_t i = 0; i < a.size(); ++i, carry /= base) {
    carry += a[i] + b[i];
    sum.push_back(carry % base);
  }
  sum.push_back(carry);
  return sum;
}

std::vector<int64_t> product_of(const Ids& a, const Ids& b, int64_t base) {
  Ids product(a.size() + b.size(), 0);
  for (size_t i = 0; i < a.size(); ++i) {
    int64_t carry = 0;
    for (size_t j = 0; j < b.size(); ++j, carry /= base) {
      carry += product[i + j] + a[i] * b[j];
      product[i + j] = carry % base;
    }
    product[i + b.size()] = carry;
  }
  return product;
}

std::pair<Vocabulary, Vocabulary> Strings::vocabularies() const {
  ProblemMaker made = maker(*this);
  return {std::move(made.inputs), std::move(made.answers)};
}

Corpus Strings::load(const std::filesystem::path& data) const {
  validate(*this, "Strings");
  check_lengths(min_length, length, test_lengths);
  return make_problems(maker(*this), problems, {length, valid_length, test_lengths}, data);
}

Corpus Strings::load(const std::filesystem::path& data, const Vocabulary& inputs,
                     const Vocabulary& answers) const {
  check_vocabularies(maker(*this), inputs, answers);
  return load(data);
}

std::vector<WrittenProblem> Strings::read_text(const std::string& text, const std::string& source,
                                               const Vocabulary& inputs) const {
  std::vector<WrittenProblem> read;
  for (const LineBlock& block : line_blocks(text)) {
    int64_t line = block.line;
    for (const std::string_view each : block.lines) {
      const std::string where = at_line(source, line);
      const Ids problem = as_read(*this, read_symbols(each, inputs, where), where);
      read.push_back(
          {with_blanks(problem, int64_t(answer_of(*this, problem).size()), blanks_of(*this)),
           line++});
    }
  }
  DEQ_CHECK(!read.empty(), "{}: no string; expected one at least", printable(source, 400));
  return read;
}

std::string Strings::show(const Shown& shown) const {
  const bool own = shown.answer.defined();
  Ids ids = own ? in_blanks(shown.problem, shown.answer, blanks_of(*this))
                : before_end(shown.problem, blanks_of(*this));
  if (of_numbers()) {
    const auto between = std::find(ids.begin(), ids.end(), own ? -2 : operator_of(*this));
    std::reverse(ids.begin(), between);
    if (between != ids.end()) std::reverse(between + 1, ids.end());
  }
  return write_symbols(at::tensor(ids, at::kLong), own ? shown.answers : shown.inputs,
                       {.symbols = ""});
}

std::string Strings::check(const at::Tensor& problem, const at::Tensor& answer) const {
  const BlankSymbols blanks = blanks_of(*this);
  return first_difference(problem, answer, answer_of(*this, before_end(problem, blanks)), blanks);
}

}  // namespace deq
