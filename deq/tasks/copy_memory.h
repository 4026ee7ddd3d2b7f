#pragma once

#include "deq/data/corpus.h"

namespace deq {

/// What asks for the answer: the paper's single 9 with blanks behind it, or a 9 there and at each
/// of the ten answers, as the generator of the TCN repository has it (x_{T+10} .. x_{T+20} = 9).
enum class Ending { Delimiter, Recall };
template <>
struct Names<Ending> {
  static constexpr const char* values[] = {"delimiter", "recall"};
};

/// Copy memory (Hochreiter and Schmidhuber 1997; as in Bai, Kolter, Koltun 2019, appendix F): ten
/// symbols to be repeated after a delay. With x_1 the first of T + 20 positions,
///     x_1 .. x_10   uniform in 1 .. 8            x_{T+10} = 9, all others 0
///     y_1 .. y_{T+10} = 0                        y_{T+11} .. y_{T+20} = x_1 .. x_10
/// A model that remembers nothing is certain of the blanks and guesses among eight symbols: its
/// mean loss is 10 ln 8 / (T + 20).
struct CopyMemory {
  static constexpr const char* name = "copy-memory";
  static constexpr Unit unit = Unit::Symbol;
  static constexpr int64_t kSymbols = 10;  ///< to be remembered, and the vocabulary: "0" .. "9"
  int64_t delay = 400;
  Ending ending = Ending::Delimiter;
  int64_t train_sequences = 20000;
  int64_t valid_sequences = 1000;
  int64_t test_sequences = 2000;
  int64_t seed = 1;

  static void fields(auto& self, auto&& field) {
    field("delay", self.delay, "T, of sequences of T + 20 positions", between(1, 100000));
    field("ending", self.ending, "one 9 after the delay, or a 9 at each answer too");
    field("train_sequences", self.train_sequences, "sequences to train on", at_least(1));
    field("valid_sequences", self.valid_sequences, "sequences for validation", at_least(1));
    field("test_sequences", self.test_sequences, "sequences of the test", at_least(1));
    field("seed", self.seed, "of the sequences", at_least(0));
  }

  int64_t length() const { return delay + 2 * kSymbols; }  ///< of a sequence
  double memoryless_loss() const;                          ///< 10 ln 8 / (T + 20), nats

  /// Makes the sequences. Each split is a stream of its own: the first n sequences of one are the
  /// same whatever its size and that of the others. Throws deq::Error where `data` is not empty, as
  /// no file is read, and where the sequences would not fit into memory.
  Corpus load(const std::filesystem::path& data) const;
  int64_t known_vocabulary() const { return kSymbols; }
  /// In a run's vocabulary, which must be this task's own.
  Corpus load(const std::filesystem::path& data, const Vocabulary& vocabulary) const;
};

}  // namespace deq
