#include "deq/tasks/problems.h"

#include "deq/base/printable.h"
#include "deq/data/random.h"

namespace deq {
namespace {

// Streams of random numbers; each test set's has its size besides.
constexpr int64_t kTrain = 0, kValid = 1, kTest = 2;

void check_disjoint(const std::vector<int64_t>& sizes) {
  for (size_t i = 0; i < sizes.size(); ++i)
    DEQ_CHECK(std::count(sizes.begin(), sizes.end(), sizes[i]) == 1,
              "test sizes: {} stands there twice; expected different ones", sizes[i]);
}

}  // namespace

Corpus make_problems(const ProblemMaker& maker, const ProblemOptions& options,
                     const ProblemSizes& sizes, const std::filesystem::path& data) {
  DEQ_CHECK(data.empty(), "data = '{}'; expected none: task {} makes its own problems",
            printable(data.string(), 400), maker.task);
  check_disjoint(sizes.tests);
  const auto make = [maker, options](int64_t count, int64_t size, int64_t set) {
    std::mt19937_64 random = random_stream({options.seed, set, size});
    return maker.make(count, size, random);
  };
  const auto training = [maker, options, size = sizes.training](int64_t epoch) {
    std::mt19937_64 random = random_stream({options.seed, kTrain, size, epoch});
    const int64_t count = options.pool > 0 ? options.pool : options.train;
    return (maker.make_training ? maker.make_training : maker.make)(count, size, random);
  };
  Corpus corpus;
  corpus.vocabulary = maker.inputs;
  corpus.answers = maker.answers;
  corpus.train = training(0);
  corpus.valid =
      make(options.valid, sizes.validation > 0 ? sizes.validation : sizes.training, kValid);
  corpus.test = make(options.test, sizes.training, kTest);
  for (const int64_t other : sizes.tests) {
    corpus.more.push_back({std::to_string(other), [make, count = options.test, other] {
                             return make(count, other, kTest);
                           }});
  }
  if (options.pool == 0) corpus.draw = training;
  return corpus;
}

void check_sizes(const char* name, const std::vector<int64_t>& sizes, int64_t least, int64_t most) {
  for (const int64_t size : sizes)
    DEQ_CHECK(size >= least && size <= most, "{} = {}; expected {} to {}", name, size, least, most);
}

void check_vocabularies(const ProblemMaker& maker, const Vocabulary& inputs,
                        const Vocabulary& answers) {
  DEQ_CHECK(inputs.fingerprint() == maker.inputs.fingerprint() &&
                answers.fingerprint() == maker.answers.fingerprint(),
            "the vocabularies given are of {} and {} symbols; expected those of task {}, of {} and "
            "{}",
            inputs.size(), answers.size(), maker.task, maker.inputs.size(), maker.answers.size());
}

Vocabulary symbols(std::vector<std::string> tokens) {
  return Vocabulary(Unit::Symbol, std::move(tokens));
}

}  // namespace deq
