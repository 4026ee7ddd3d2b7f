#include "deq/tasks/listops.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <numeric>

#include "deq/tasks/listops_text.h"

namespace deq {
namespace {

using Ids = std::vector<int64_t>;

constexpr int64_t kMostArguments = 5;
constexpr int64_t kFewestArguments = 2;
constexpr int64_t kOperations = 4;

/// Symbols of the shortest expression of a depth: at each level an operation, a digit and its end.
int64_t shortest(int64_t depth) { return 3 * depth + 1; }

/// And of the longest, or more than `enough`.
int64_t longest(int64_t depth, int64_t enough) {
  int64_t symbols = 1;
  for (; depth > 0 && symbols <= enough; --depth) symbols = kMostArguments * symbols + 2;
  return symbols;
}

int64_t apply(int64_t operation, Ids arguments) {
  std::sort(arguments.begin(), arguments.end());
  const size_t n = arguments.size();
  switch (operation) {
    case ListOps::Min:
      return arguments.front();
    case ListOps::Max:
      return arguments.back();
    case ListOps::Med:
      return (arguments[(n - 1) / 2] + arguments[n / 2]) / 2;
    default:
      return std::accumulate(arguments.begin(), arguments.end(), int64_t{0}) % 10;
  }
}

/// Draws one expression.
class Expression {
 public:
  /// Of this depth exactly, of at most `most` symbols.
  Expression(int64_t depth, int64_t most, std::mt19937_64& random)
      : random_(random), room_(most - shortest(depth)) {
    operation(depth, true);
  }
  Ids symbols;

 private:
  /// Of at most this depth, >= 1; where it is on the `deepest` path, of this depth exactly. What
  /// the shortest such needs has been taken from the room.
  void operation(int64_t depth, bool deepest) {
    symbols.push_back(ListOps::Min + below(kOperations, random_));
    const int64_t more = std::min(below(kMostArguments - kFewestArguments + 1, random_),
                                  std::max<int64_t>(room_, 0));
    room_ -= more;
    const int64_t arguments = kFewestArguments + more;
    const int64_t deep = deepest && depth > 1 ? below(arguments, random_) : -1;
    for (int64_t i = 0; i < arguments; ++i) {
      const bool nested = below(4, random_) == 0 && depth > 1 && room_ >= shortest(1) - 1;
      if (i == deep) {
        operation(depth - 1, true);
      } else if (nested) {
        room_ -= shortest(1) - 1;
        operation(depth - 1, false);
      } else {
        symbols.push_back(below(10, random_));
      }
    }
    symbols.push_back(ListOps::Close);
  }

  std::mt19937_64& random_;
  int64_t room_;
};

/// An expression's depth, and the places that it stands in.
struct Room {
  int64_t depth, places;
};

/// What training expressions are of: every depth, in 8, 16, 32, ... places, where it fits and can
/// fill more than half.
std::vector<Room> training_rooms(int64_t depth, int64_t length) {
  std::vector<int64_t> sizes{length};
  for (int64_t places = 8; places < length; places *= 2) sizes.push_back(places);
  std::sort(sizes.begin(), sizes.end());
  std::vector<Room> rooms;
  for (int64_t d = 1; d <= depth; ++d) {
    for (const int64_t places : sizes)
      if (places >= shortest(d) && longest(d, places) > places / 2) rooms.push_back({d, places});
  }
  return rooms;
}

/// Problem s stands in room s mod how many there are.
Split expressions(const std::vector<Room>& rooms, bool every, int64_t count,
                  std::mt19937_64& random) {
  int64_t places = 0;
  bool alike = true;
  for (const Room& room : rooms) {
    places = std::max(places, room.places);
    alike = alike && room.places == rooms.front().places;
  }
  std::vector<Ids> all;
  for (int64_t s = 0; s < count; ++s) {
    const Room& room = rooms[size_t(s) % rooms.size()];
    all.push_back(Expression(room.depth, room.places, random).symbols);
  }
  Split split = listops_split(all, places, every);
  split.extents = at::Tensor();
  if (alike) return split;
  split.extents = at::empty({count, 1}, at::kLong);
  for (int64_t s = 0; s < count; ++s)
    split.extents.data_ptr<int64_t>()[s] = rooms[size_t(s) % rooms.size()].places;
  return split;
}

ProblemMaker maker(const ListOps& task) {
  std::vector<std::string> answers;
  for (int64_t digit = 0; digit < 10; ++digit) answers.push_back(std::to_string(digit));
  std::vector<std::string> inputs = answers;
  inputs.insert(inputs.end(), {"[MIN", "[MAX", "[MED", "[SM", "]", "_"});
  const auto whole = [task](int64_t count, int64_t depth, std::mt19937_64& random) {
    const int64_t places = depth == task.depth ? task.length : 4 * task.length;
    return expressions({{depth, places}}, task.every, count, random);
  };
  const auto training = [task](int64_t count, int64_t depth, std::mt19937_64& random) {
    return expressions(training_rooms(depth, task.length), task.every, count, random);
  };
  return {ListOps::name, symbols(std::move(inputs)), symbols(std::move(answers)), whole, training};
}

Ids without_blanks(const at::Tensor& problem) {
  const at::Tensor held = problem.contiguous();
  const auto* first = held.data_ptr<int64_t>();
  return {first, std::find(first, first + held.numel(), int64_t{ListOps::Blank})};
}

}  // namespace

ListOpsValues evaluate_listops(const std::vector<int64_t>& symbols,
                               const std::function<std::string(size_t)>& place) {
  struct Open {
    int64_t operation;
    Ids arguments;
  };
  const auto check = [&](bool good, size_t at, const char* what) {
    DEQ_CHECK(good, "{}: {}", place ? place(at) : fmt::format("symbol {}", at + 1), what);
  };
  ListOpsValues found{.at = Ids(symbols.size(), -1)};
  std::vector<Open> open;
  bool done = false;
  for (size_t i = 0; i < symbols.size(); ++i) {
    int64_t value = symbols[i];
    check(!done, i, "more behind an expression; expected its end");
    check(value >= 0 && value < ListOps::Blank, i, "a blank; expected a digit, an operation or ]");
    if (value >= ListOps::Min && value <= ListOps::Sm) {
      open.push_back({value, {}});
      found.depth = std::max(found.depth, int64_t(open.size()));
      continue;
    }
    if (value == ListOps::Close) {
      check(!open.empty(), i, "a ] that closes nothing; expected an operation or a digit");
      check(!open.back().arguments.empty(), i,
            "an operation without arguments; expected one at least");
      value = found.at[i] = apply(open.back().operation, std::move(open.back().arguments));
      open.pop_back();
    }
    done = open.empty();
    if (done)
      found.value = value;
    else
      open.back().arguments.push_back(value);
  }
  check(done, symbols.size(),
        open.empty() ? "no expression; expected one" : "an open operation; expected ]");
  return found;
}

std::pair<Vocabulary, Vocabulary> ListOps::vocabularies() const {
  ProblemMaker made = maker(*this);
  return {std::move(made.inputs), std::move(made.answers)};
}

Corpus ListOps::load(const std::filesystem::path& data) const {
  validate(*this, "ListOps");
  DEQ_CHECK(shortest(depth) <= length,
            "task-length = {}: an expression of depth {} has {} symbols at least; expected as many",
            length, depth, shortest(depth));
  DEQ_CHECK(valid_depth == 0 || shortest(valid_depth) <= 4 * length,
            "task-valid-depth = {}; expected 0 to {}, what fits into four times task-length",
            valid_depth, (4 * length - 1) / 3);
  for (const int64_t other : test_depths)
    DEQ_CHECK(other >= 1 && shortest(other) <= 4 * length && other != depth,
              "task-test-depths = {}; expected 1 to {}, what fits into four times task-length, and "
              "not task-depth, which is the test's",
              other, (4 * length - 1) / 3);
  return make_problems(maker(*this), problems, {depth, valid_depth, test_depths}, data);
}

Corpus ListOps::load(const std::filesystem::path& data, const Vocabulary& inputs,
                     const Vocabulary& answers) const {
  check_vocabularies(maker(*this), inputs, answers);
  if (data.empty()) return load(data);
  Corpus corpus = load_listops(data, every);
  corpus.vocabulary = inputs;
  corpus.answers = answers;
  return corpus;
}

std::vector<WrittenProblem> ListOps::read_text(const std::string& text, const std::string& source,
                                               const Vocabulary& inputs) const {
  return read_listops(text, source, inputs);
}

std::string ListOps::show(const Shown& shown) const {
  const Ids expression = without_blanks(shown.problem);
  if (!shown.answer.defined())
    return write_symbols(at::tensor(expression, at::kLong), shown.inputs);
  const at::Tensor held = shown.answer.contiguous();
  const auto* answer = held.data_ptr<int64_t>();
  Ids values;
  for (size_t i = 0; i < expression.size(); ++i) {
    if (i + 1 == expression.size() || (every && expression[i] == Close))
      values.push_back(answer[i]);
  }
  return write_symbols(at::tensor(values, at::kLong), shown.answers);
}

std::string ListOps::check(const at::Tensor& problem, const at::Tensor& answer) const {
  const Ids expression = without_blanks(problem);
  const ListOpsValues right = evaluate_listops(expression);
  const auto own = answer.accessor<int64_t, 1>();
  const size_t last = expression.size() - 1;
  if (own[int64_t(last)] != right.value) return "another value of the whole";
  for (size_t i = 0; every && i < last; ++i) {
    if (right.at[i] >= 0 && own[int64_t(i)] != right.at[i])
      return fmt::format("another value at symbol {}", i + 1);
  }
  return "";
}

}  // namespace deq
