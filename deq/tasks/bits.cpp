#include "deq/tasks/bits.h"

#include <ATen/ATen.h>

#include "deq/base/printable.h"
#include "deq/tasks/in_blanks.h"

namespace deq {
namespace {

BlankSymbols blanks_of(const Bits& task) { return {task.vectors() + 1, task.vectors()}; }

/// Problem s has min + s mod (max - min + 1) vectors.
Split copies(const Bits& task, int64_t count, int64_t min, int64_t max, std::mt19937_64& random) {
  std::vector<Stated> stated;
  for (int64_t s = 0; s < count; ++s) {
    std::vector<int64_t> vectors;
    for (int64_t i = min + s % (max - min + 1); i > 0; --i)
      vectors.push_back(below(task.vectors(), random));
    stated.push_back({vectors, vectors});
  }
  return answered_in_blanks(stated, blanks_of(task));
}

ProblemMaker maker(const Bits& task) {
  std::vector<std::string> vectors;
  for (int64_t number = 0; number < task.vectors(); ++number) {
    vectors.emplace_back();
    for (int64_t bit = task.bits - 1; bit >= 0; --bit)
      vectors.back().push_back(number >> bit & 1 ? '1' : '0');
  }
  std::vector<std::string> inputs = vectors;
  inputs.insert(inputs.end(), {"_", "="});
  const auto whole = [task](int64_t count, int64_t length, std::mt19937_64& random) {
    return copies(task, count, length, length, random);
  };
  const auto training = [task](int64_t count, int64_t length, std::mt19937_64& random) {
    return copies(task, count, task.min_length, length, random);
  };
  return {Bits::name, symbols(std::move(inputs)), symbols(std::move(vectors)), whole, training};
}

}  // namespace

std::pair<Vocabulary, Vocabulary> Bits::vocabularies() const {
  ProblemMaker made = maker(*this);
  return {std::move(made.inputs), std::move(made.answers)};
}

Corpus Bits::load(const std::filesystem::path& data) const {
  validate(*this, "Bits");
  check_lengths(min_length, length, test_lengths);
  return make_problems(maker(*this), problems, {length, valid_length, test_lengths}, data);
}

Corpus Bits::load(const std::filesystem::path& data, const Vocabulary& inputs,
                  const Vocabulary& answers) const {
  check_vocabularies(maker(*this), inputs, answers);
  return load(data);
}

std::vector<WrittenProblem> Bits::read_text(const std::string& text, const std::string& source,
                                            const Vocabulary& inputs) const {
  std::vector<WrittenProblem> read = read_problems(text, source, inputs, 1);
  const BlankSymbols blanks = blanks_of(*this);
  for (WrittenProblem& problem : read) {
    DEQ_CHECK(problem.tokens.max().item<int64_t>() < vectors(),
              "{}: a blank or an end among the vectors; expected vectors of {} bits alone",
              at_line(source, problem.line), bits);
    const auto* first = problem.tokens.data_ptr<int64_t>();
    const int64_t count = problem.tokens.numel();
    problem.tokens = with_blanks({first, first + count}, count, blanks);
  }
  return read;
}

std::string Bits::show(const Shown& shown) const {
  const bool own = shown.answer.defined();
  const std::vector<int64_t> ids = own ? in_blanks(shown.problem, shown.answer, blanks_of(*this))
                                       : before_end(shown.problem, blanks_of(*this));
  const at::Tensor vectors = at::tensor(ids, at::kLong);
  return write_symbols(shown.picture && own ? vectors.unsqueeze(1) : vectors,
                       own ? shown.answers : shown.inputs, {.rows = "\n"});
}

std::string Bits::check(const at::Tensor& problem, const at::Tensor& answer) const {
  const BlankSymbols blanks = blanks_of(*this);
  return first_difference(problem, answer, before_end(problem, blanks), blanks);
}

}  // namespace deq
