#include "deq/tasks/parity.h"

#include <ATen/ATen.h>

#include "deq/tasks/prefix_sums.h"

namespace deq {
namespace {

/// Of the sums only the last is asked for.
Split bits(int64_t count, int64_t length, std::mt19937_64& random) {
  Split split = bits_and_sums(count, length, random);
  split.targets.narrow(1, 0, length - 1).fill_(-1);
  split.answer = 1;
  return split;
}

ProblemMaker maker() { return {Parity::name, symbols({"0", "1"}), symbols({"0", "1"}), bits}; }

}  // namespace

Corpus Parity::load(const std::filesystem::path& data) const {
  validate(*this, "Parity");
  check_sizes("task-test-lengths", test_lengths, 1, 1 << 20);
  return make_problems(maker(), problems, {length, valid_length, test_lengths}, data);
}

Corpus Parity::load(const std::filesystem::path& data, const Vocabulary& inputs,
                    const Vocabulary& answers) const {
  check_vocabularies(maker(), inputs, answers);
  return load(data);
}

std::string Parity::show(const Shown& shown) const {
  const at::Tensor& all = shown.answer.defined() ? shown.answer : shown.problem;
  const at::Tensor one = shown.answer.defined() ? all.narrow(0, all.size(0) - 1, 1) : all;
  return write_symbols(one, shown.inputs, {.symbols = ""});
}

std::string Parity::check(const at::Tensor& problem, const at::Tensor& answer) const {
  const auto bit = problem.accessor<int64_t, 1>(), said = answer.accessor<int64_t, 1>();
  int64_t ones = 0;
  for (int64_t t = 0; t < bit.size(0); ++t) ones += bit[t];
  if (said[bit.size(0) - 1] == ones % 2) return "";
  return fmt::format("{} of the bits are 1", ones);
}

}  // namespace deq
