// Tasks that make their own problems: how many, from which seed, and of which sizes.
#pragma once

#include <random>

#include "deq/data/corpus.h"

namespace deq {

/// How many problems, and from which seed.
struct ProblemOptions {
  int64_t train = 8192;
  int64_t pool = 0;
  int64_t valid = 1000;
  int64_t test = 1000;
  int64_t seed = 1;

  static void fields(auto& self, auto&& field) {
    field("train", self.train, "problems of an epoch, drawn anew for each", between(1, 1 << 24));
    field("pool", self.pool, "train on so many problems again and again; 0: on ever new ones",
          between(0, 1 << 24));
    field("valid", self.valid, "problems for validation", between(1, 1 << 24));
    field("test", self.test, "problems of each test set", between(1, 1 << 24));
    field("seed", self.seed, "of the problems", at_least(0));
  }
};

/// What a task's problems are made of.
struct ProblemMaker {
  const char* task;    ///< its name
  Vocabulary inputs;   ///< of problems
  Vocabulary answers;  ///< of answers
  /// `count` problems of one size, with their targets, from these random numbers alone.
  std::function<Split(int64_t count, int64_t size, std::mt19937_64& random)> make;
  /// The same for training, where problems are of several sizes. Empty: as `make`.
  std::function<Split(int64_t count, int64_t size, std::mt19937_64& random)> make_training = {};
};

/// Of which sizes a task's problems are.
struct ProblemSizes {
  int64_t training = 0;             ///< and of the test set
  int64_t validation = 0;           ///< 0: as in training
  std::vector<int64_t> tests = {};  ///< of further test sets, which are named for them
};

/// Each set is a stream of its own: the first n problems of one are the same whatever its size and
/// that of the others, on every machine. Throws deq::Error where `data` is not empty, as no file is
/// read.
Corpus make_problems(const ProblemMaker& maker, const ProblemOptions& options,
                     const ProblemSizes& sizes, const std::filesystem::path& data);

/// Throws deq::Error for one of `sizes`, the option `name`, below `least` or above `most`.
void check_sizes(const char* name, const std::vector<int64_t>& sizes, int64_t least, int64_t most);

/// Throws deq::Error where vocabularies given are not the task's.
void check_vocabularies(const ProblemMaker& maker, const Vocabulary& inputs,
                        const Vocabulary& answers);

/// Symbols, one for each of these.
Vocabulary symbols(std::vector<std::string> tokens);

/// Of 0 .. count - 1, each as likely (but for count / 2^64).
inline int64_t below(int64_t count, std::mt19937_64& random) {
  return int64_t(random() % uint64_t(count));
}

}  // namespace deq
