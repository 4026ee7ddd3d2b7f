#include "deq/tasks/parity.h"

namespace deq {
namespace {

Split bits(int64_t count, int64_t length, std::mt19937_64& random) {
  Split split{.tokens = at::empty({count, length}, at::kLong),
              .targets = at::full({count, length}, -1, at::kLong),
              .answer = 1};
  auto tokens = split.tokens.accessor<int64_t, 2>(), targets = split.targets.accessor<int64_t, 2>();
  for (int64_t s = 0; s < count; ++s) {
    uint64_t drawn = 0;
    int64_t sum = 0;
    for (int64_t t = 0; t < length; ++t, drawn >>= 1) {
      if (t % 64 == 0) drawn = random();
      tokens[s][t] = int64_t(drawn & 1);
      sum ^= tokens[s][t];
    }
    targets[s][length - 1] = sum;
  }
  return split;
}

ProblemMaker maker() { return {Parity::name, symbols({"0", "1"}), symbols({"0", "1"}), bits}; }

}  // namespace

Corpus Parity::load(const std::filesystem::path& data) const {
  validate(*this, "Parity");
  for (const int64_t other : test_lengths)
    DEQ_CHECK(other >= 1 && other <= 1 << 20, "task-test-lengths = {}; expected 1 to 1048576",
              other);
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
