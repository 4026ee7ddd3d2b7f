#include "deq/tasks/copy_memory.h"

#include <cmath>

#include "deq/base/printable.h"
#include "deq/data/random.h"

namespace deq {
namespace {

constexpr int64_t kKinds = 8;  // of symbols to be remembered: 1 .. 8; 0 is the blank
constexpr int64_t kDelimiter = 9;
constexpr int64_t kMostPositions = int64_t{1} << 29;  // of all splits: 8 GiB with their targets

Vocabulary digits() {
  std::vector<std::string> tokens;
  for (int64_t digit = 0; digit < CopyMemory::kSymbols; ++digit)
    tokens.push_back(std::to_string(digit));
  return Vocabulary(Unit::Symbol, std::move(tokens));
}

/// Split number `stream` of a task.
Split make_split(const CopyMemory& task, int64_t sequences, int64_t stream) {
  constexpr int64_t n = CopyMemory::kSymbols;
  std::mt19937_64 random = random_stream({task.seed, stream});
  Split split{.tokens = at::zeros({sequences, task.length()}, at::kLong),  // (S, T + 20)
              .targets = at::zeros({sequences, task.length()}, at::kLong),
              .answer = n};
  auto tokens = split.tokens.accessor<int64_t, 2>();
  auto targets = split.targets.accessor<int64_t, 2>();
  const int64_t delimiters = task.ending == Ending::Recall ? n + 1 : 1;
  for (int64_t s = 0; s < sequences; ++s) {
    uint64_t bits = random();  // three for each symbol
    for (int64_t i = 0; i < n; ++i, bits /= kKinds) {
      tokens[s][i] = targets[s][task.delay + n + i] = 1 + int64_t(bits % kKinds);
    }
    for (int64_t i = 0; i < delimiters; ++i) tokens[s][task.delay + n - 1 + i] = kDelimiter;
  }
  return split;
}

}  // namespace

double CopyMemory::memoryless_loss() const {
  return double(kSymbols) * std::log(double(kKinds)) / double(length());
}

Corpus CopyMemory::load(const std::filesystem::path& data) const {
  validate(*this, "CopyMemory");
  DEQ_CHECK(data.empty(), "data = '{}'; expected none: task {} makes its own sequences",
            printable(data.string(), 400), name);
  const double positions =
      (double(train_sequences) + double(valid_sequences) + double(test_sequences)) *
      double(length());
  DEQ_CHECK(positions <= double(kMostPositions),
            "task {}: {:.3g} sequences of {} symbols are {:.3g} positions; expected <= {}", name,
            positions / double(length()), length(), positions, kMostPositions);
  return {digits(), make_split(*this, train_sequences, 0), make_split(*this, valid_sequences, 1),
          make_split(*this, test_sequences, 2)};
}

Corpus CopyMemory::load(const std::filesystem::path& data, const Vocabulary& vocabulary) const {
  DEQ_CHECK(vocabulary.fingerprint() == digits().fingerprint(),
            "the vocabulary given is of {} {}s; task {} has the symbols 0 to 9", vocabulary.size(),
            unit_name(vocabulary.unit()), name);
  return load(data);
}

}  // namespace deq
