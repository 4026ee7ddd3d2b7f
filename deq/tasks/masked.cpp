#include "deq/tasks/masked.h"

#include <algorithm>
#include <cmath>

#include "deq/base/printable.h"
#include "deq/data/random.h"
#include "deq/tasks/characters.h"
#include "deq/tasks/lines.h"

namespace deq {

using at::Tensor;

namespace {

constexpr const char* kHole = "<hole>";
constexpr std::string_view kWrittenHole = "_";
constexpr double kTestShare = 0.15;
// Streams of random numbers; a further test set's has its holes' length besides.
constexpr int64_t kTrain = 0, kValid = 1, kTest = 2, kNext = 3;
constexpr int64_t kOfALength = 64;  // prefixes that a batch may hold side by side

std::vector<std::string> tokens_of(const Vocabulary& vocabulary) {
  std::vector<std::string> tokens;
  for (int64_t id = 0; id < vocabulary.size(); ++id) tokens.push_back(vocabulary.token(id));
  return tokens;
}

/// Which of `length` characters are holes of these lengths, in turn, until they are a share of
/// them; holes do not meet where there is room.
std::vector<char> holes_of(int64_t length, double share,
                           const std::function<int64_t()>& next_length, std::mt19937_64& random) {
  const auto wanted = std::max<int64_t>(1, int64_t(share * double(length)));
  std::vector<char> holes(size_t(length), 0);
  for (int64_t made = 0, tries = 0; made < wanted && tries < 8 * length; ++tries) {
    const int64_t hole = std::min(next_length(), length);
    const int64_t first = below(length - hole + 1, random);
    const auto near = holes.begin() + std::max<int64_t>(0, first - 1);
    const auto end = holes.begin() + std::min(length, first + hole + 1);
    if (made > 0 && std::find(near, end, 1) != end) continue;
    std::fill_n(holes.begin() + first, hole, 1);
    made += hole;
  }
  return holes;
}

/// Pieces of one part of a text.
struct Pieces {
  Tensor text;  // (N) of answers
  int64_t length = 0, hole = 0, longest = 1;
  double least = 0, most = 0;

  Split empty(int64_t count) const {
    return {.tokens = at::full({count, length}, hole, at::kLong),
            .targets = at::full({count, length}, -1, at::kLong),
            .answer = kEveryPosition};
  }

  /// Prefixes first, a share `ends`.
  Split make(int64_t count, double ends, std::mt19937_64& random) const {
    Split split = empty(count);
    const auto prefixes = int64_t(std::llround(ends * double(count)));
    cut_prefixes(split, prefixes, random);
    make_holes(split, prefixes, 0, random);
    return split;
  }

  /// The first problems, as prefixes whose lengths no epoch changes.
  void cut_prefixes(Split& split, int64_t count, std::mt19937_64& random) const {
    if (count == 0) return;
    split.extents = at::full({split.tokens.size(0), 1}, length, at::kLong);
    const auto* from = text.data_ptr<int64_t>();
    const int64_t groups = (count + kOfALength - 1) / kOfALength;
    for (int64_t s = 0; s < count; ++s) {
      const int64_t prefix = 1 + (2 * (s / kOfALength) + 1) * (length - 1) / (2 * groups);
      const int64_t first = below(text.size(0) - length + 1, random);
      std::copy_n(from + first, prefix, split.tokens[s].data_ptr<int64_t>());
      split.targets[s][prefix] = from[first + prefix];
      split.extents[s][0] = prefix + 1;
    }
  }

  /// Of the problems from `begin` on; holes of one length, or of any (0).
  void make_holes(Split& split, int64_t begin, int64_t one_length, std::mt19937_64& random) const {
    const auto* from = text.data_ptr<int64_t>();
    auto* token = split.tokens.data_ptr<int64_t>() + begin * length;
    auto* target = split.targets.data_ptr<int64_t>() + begin * length;
    for (int64_t s = begin; s < split.tokens.size(0); ++s, token += length, target += length) {
      const int64_t first = below(text.size(0) - length + 1, random);
      const double drawn = double(random() >> 11) * 0x1p-53;
      const double share = one_length > 0 ? kTestShare : least + (most - least) * drawn;
      const std::vector<char> holes = holes_of(
          length, share, [&] { return one_length > 0 ? one_length : 1 + below(longest, random); },
          random);
      for (int64_t t = 0; t < length; ++t) {
        const int64_t id = from[first + t];
        token[t] = holes[size_t(t)] ? hole : id;
        if (holes[size_t(t)]) target[t] = id;
      }
    }
  }
};

void check(const Masked& task) {
  validate(task, "Masked");
  DEQ_CHECK(task.least <= task.most, "task-least = {} with task-most = {}; expected no more",
            task.least, task.most);
  for (const int64_t hole : task.holes)
    DEQ_CHECK(hole >= 1 && hole <= task.length,
              "task-holes = {}; expected 1 to task-length = {} characters", hole, task.length);
}

Corpus make_corpus(const Masked& task, const Corpus& text, const Vocabulary& inputs,
                   const Vocabulary& answers) {
  const int64_t hole = hole_of(inputs);
  const auto pieces = [&](const Split& part, const char* name) {
    DEQ_CHECK(part.tokens.size(0) >= task.length,
              "the {} split has {} characters; expected those of a piece, task-length = {}", name,
              part.tokens.size(0), task.length);
    return Pieces{part.tokens.to(at::kLong).contiguous(),
                  task.length,
                  hole,
                  task.longest,
                  task.least,
                  task.most};
  };
  const Pieces train = pieces(text.train, "train"), valid = pieces(text.valid, "valid"),
               test = pieces(text.test, "test");
  const ProblemOptions& how = task.problems;
  const double ends = task.ends;
  const auto training = [train, how, ends](int64_t epoch) {
    std::mt19937_64 random = random_stream({how.seed, kTrain, epoch});
    return train.make(how.pool > 0 ? how.pool : how.train, ends, random);
  };
  const auto held_out = [how, ends](const Pieces& part, int64_t count, int64_t set) {
    std::mt19937_64 random = random_stream({how.seed, set, 0});
    return part.make(count, ends, random);
  };
  const auto of_length = [how](const Pieces& part, int64_t length) {
    std::mt19937_64 random = random_stream({how.seed, kTest, length});
    Split split = part.empty(how.test);
    part.make_holes(split, 0, length, random);
    return split;
  };
  Corpus corpus;
  corpus.vocabulary = inputs;
  corpus.answers = answers;
  corpus.train = training(0);
  corpus.valid = held_out(valid, how.valid, kValid);
  corpus.test = held_out(test, how.test, kTest);
  for (const int64_t length : task.holes)
    corpus.more.push_back({std::to_string(length), [=] { return of_length(test, length); }});
  corpus.more.push_back({"next", [=] {
                           std::mt19937_64 random = random_stream({how.seed, kNext, 0});
                           return test.make(how.test, 1, random);
                         }});
  if (how.pool == 0) corpus.draw = training;
  return corpus;
}

}  // namespace

int64_t hole_of(const Vocabulary& inputs) {
  const auto found = inputs.find(kHole);
  DEQ_CHECK(found, "a vocabulary without {}; expected that of task masked", kHole);
  return *found;
}

Corpus Masked::load(const std::filesystem::path& data) const {
  check(*this);
  const Corpus text = Characters{.shares = shares}.load(data);
  std::vector<std::string> tokens = tokens_of(text.vocabulary);
  const Vocabulary answers(Unit::Symbol, tokens);
  tokens.emplace_back(kHole);
  return make_corpus(*this, text, Vocabulary(Unit::Symbol, std::move(tokens)), answers);
}

Corpus Masked::load(const std::filesystem::path& data, const Vocabulary& inputs,
                    const Vocabulary& answers) const {
  check(*this);
  const Vocabulary characters(Unit::Character, tokens_of(answers));
  return make_corpus(*this, Characters{.shares = shares}.load(data, characters), inputs, answers);
}

std::vector<WrittenProblem> Masked::read_text(std::string_view text, const std::string& source,
                                              const Vocabulary& inputs) const {
  const int64_t hole = hole_of(inputs);
  std::vector<WrittenProblem> problems;
  for_each_line(text, [&](std::string_view own, int64_t line) {
    if (own.empty()) return;
    std::vector<int64_t> ids;
    for_each_token(
        Unit::Character, own,
        [&](std::string_view character, int64_t) {
          const auto found = inputs.find(character);
          DEQ_CHECK(character == kWrittenHole || found,
                    "{}: '{}' is not among the {} characters of the run's text",
                    at_line(source, line), printable(std::string(character)), inputs.size() - 1);
          ids.push_back(character == kWrittenHole ? hole : *found);
        },
        source);
    DEQ_CHECK(std::find(ids.begin(), ids.end(), hole) != ids.end(),
              "{}: no hole; expected an underscore for each character to be found",
              at_line(source, line));
    problems.push_back({at::tensor(ids, at::kLong), line});
  });
  DEQ_CHECK(!problems.empty(), "{}: no text; expected lines with underscores for holes",
            printable(source, 400));
  return problems;
}

std::string Masked::show(const Shown& shown) const {
  const int64_t hole = hole_of(shown.inputs);
  std::string text;
  for (int64_t t = 0; t < shown.problem.size(0); ++t) {
    const int64_t id = shown.problem[t].item<int64_t>();
    const int64_t answer = shown.answer.defined() ? shown.answer[t].item<int64_t>() : -1;
    const std::string token = id != hole   ? shown.inputs.token(id)
                              : answer < 0 ? std::string(kWrittenHole)
                                           : shown.answers.token(answer);
    text += token == "\n" ? "\\n" : token;  // one line
  }
  return text;
}

}  // namespace deq
