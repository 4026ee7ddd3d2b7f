#include "deq/tasks/prefix_sums.h"

namespace deq {

Split bits_and_sums(int64_t count, int64_t length, std::mt19937_64& random) {
  Split split{.tokens = at::empty({count, length}, at::kLong),
              .targets = at::empty({count, length}, at::kLong),
              .answer = kEveryPosition};
  auto tokens = split.tokens.accessor<int64_t, 2>(), targets = split.targets.accessor<int64_t, 2>();
  for (int64_t s = 0; s < count; ++s) {
    uint64_t drawn = 0;
    int64_t sum = 0;
    for (int64_t t = 0; t < length; ++t, drawn >>= 1) {
      if (t % 64 == 0) drawn = random();
      tokens[s][t] = int64_t(drawn & 1);
      targets[s][t] = sum = (sum + tokens[s][t]) % 2;
    }
  }
  return split;
}

namespace {

ProblemMaker maker() {
  return {PrefixSums::name, symbols({"0", "1"}), symbols({"0", "1"}), bits_and_sums};
}

}  // namespace

Corpus PrefixSums::load(const std::filesystem::path& data) const {
  validate(*this, "PrefixSums");
  check_sizes("task-test-lengths", test_lengths, 1, 1 << 20);
  return make_problems(maker(), problems, {length, valid_length, test_lengths}, data);
}

Corpus PrefixSums::load(const std::filesystem::path& data, const Vocabulary& inputs,
                        const Vocabulary& answers) const {
  check_vocabularies(maker(), inputs, answers);
  return load(data);
}

std::string PrefixSums::show(const Shown& shown) const {
  const at::Tensor& bits = shown.answer.defined() ? shown.answer : shown.problem;
  return write_symbols(bits, shown.inputs, {.symbols = ""});
}

std::string PrefixSums::check(const at::Tensor& problem, const at::Tensor& answer) const {
  const auto bit = problem.accessor<int64_t, 1>(), sums = answer.accessor<int64_t, 1>();
  int64_t sum = 0;
  for (int64_t t = 0; t < bit.size(0); ++t) {
    sum = (sum + bit[t]) % 2;
    if (sums[t] != sum) return fmt::format("the sum is {} at position {}", sum, t + 1);
  }
  return "";
}

}  // namespace deq
