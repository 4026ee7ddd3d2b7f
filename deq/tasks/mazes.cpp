#include "deq/tasks/mazes.h"

#include <array>
#include <deque>

namespace deq {
namespace {

struct Place {
  int64_t row, column;
};
constexpr std::array<Place, 4> kSteps = {{{-1, 0}, {0, 1}, {1, 0}, {0, -1}}};

/// Rooms joined by a depth-first walk, and from which one it came to each.
class Walk {
 public:
  Walk(int64_t r, std::mt19937_64& random) : r_(r), came_from_(size_t(r * r)), depth_(came_from_) {
    std::fill(depth_.begin(), depth_.end(), -1);
    std::vector<int64_t> walk{below(r * r, random)};
    depth_[size_t(walk[0])] = 0;
    while (!walk.empty()) {
      const int64_t room = walk.back();
      const std::vector<int64_t> ways = ways_out_of(room);
      if (ways.empty()) {
        walk.pop_back();
        continue;
      }
      const int64_t way = ways[size_t(below(int64_t(ways.size()), random))];
      const int64_t next = room + kSteps[size_t(way)].row * r + kSteps[size_t(way)].column;
      came_from_[size_t(next)] = way;
      depth_[size_t(next)] = depth_[size_t(room)] + 1;
      walk.push_back(next);
    }
  }

  /// Tells of each step of the way between two rooms, the one of them that the walk came to from
  /// the other, and the step it made.
  void between(int64_t a, int64_t b, const std::function<void(int64_t, Place)>& step) const {
    while (a != b) {
      int64_t& deeper = depth_[size_t(a)] > depth_[size_t(b)] ? a : b;
      const Place way = kSteps[size_t(came_from_[size_t(deeper)])];
      step(deeper, way);
      deeper -= way.row * r_ + way.column;
    }
  }
  /// The same of every room but the first.
  void everywhere(const std::function<void(int64_t, Place)>& step) const {
    for (int64_t room = 0; room < r_ * r_; ++room) {
      if (depth_[size_t(room)] > 0) step(room, kSteps[size_t(came_from_[size_t(room)])]);
    }
  }

 private:
  std::vector<int64_t> ways_out_of(int64_t room) const {
    std::vector<int64_t> ways;
    for (int64_t way = 0; way < 4; ++way) {
      const int64_t y = room / r_ + kSteps[size_t(way)].row,
                    x = room % r_ + kSteps[size_t(way)].column;
      if (y >= 0 && y < r_ && x >= 0 && x < r_ && depth_[size_t(y * r_ + x)] < 0)
        ways.push_back(way);
    }
    return ways;
  }

  int64_t r_;
  std::vector<int64_t> came_from_;  // as a step of kSteps
  std::vector<int64_t> depth_;      // of each room, in rooms; -1: not reached
};

using Rooms = std::pair<int64_t, int64_t>;

/// Two different rooms: of 1 to `most` pairs, those that are farthest apart.
Rooms start_and_end(const Walk& walk, int64_t r, int64_t most, std::mt19937_64& random) {
  const int64_t pairs = most == 1 ? 1 : 1 + below(most, random);
  Rooms best;
  int64_t farthest = -1;
  for (int64_t pair = 0; pair < pairs; ++pair) {
    Rooms rooms{below(r * r, random), below(r * r - 1, random)};
    if (rooms.second >= rooms.first) ++rooms.second;
    int64_t length = 0;
    walk.between(rooms.first, rooms.second, [&](int64_t, Place) { ++length; });
    if (length <= farthest) continue;
    farthest = length;
    best = rooms;
  }
  return best;
}

/// One maze of r x r rooms into `squares`, and the squares of its path into `path`, both (2 r + 1,
/// 2 r + 1), of zeros.
void make_maze(int64_t r, int64_t pairs, std::mt19937_64& random,
               at::TensorAccessor<int64_t, 2> squares, at::TensorAccessor<int64_t, 2> path) {
  const Walk walk(r, random);
  const auto mark = [r](at::TensorAccessor<int64_t, 2> grid, int64_t room, Place back,
                        int64_t kind) {
    grid[2 * (room / r) + 1 - back.row][2 * (room % r) + 1 - back.column] = kind;
  };
  for (int64_t room = 0; room < r * r; ++room) mark(squares, room, {0, 0}, Mazes::Open);
  walk.everywhere([&](int64_t room, Place way) { mark(squares, room, way, Mazes::Open); });
  const auto [a, b] = start_and_end(walk, r, pairs, random);
  mark(squares, a, {0, 0}, Mazes::Start);
  mark(squares, b, {0, 0}, Mazes::End);
  for (const int64_t end : {a, b}) mark(path, end, {0, 0}, 1);
  walk.between(a, b, [&](int64_t room, Place way) {
    mark(path, room, {0, 0}, 1);
    mark(path, room, way, 1);
    mark(path, room, {2 * way.row, 2 * way.column}, 1);
  });
}

Split mazes(int64_t count, int64_t size, int64_t pairs, std::mt19937_64& random) {
  const int64_t r = (size + 1) / 2, side = Mazes::squares(size);
  Split split{.tokens = at::zeros({count, side, side}, at::kLong),
              .targets = at::zeros({count, side, side}, at::kLong),
              .answer = kEveryPosition};
  auto tokens = split.tokens.accessor<int64_t, 3>(), targets = split.targets.accessor<int64_t, 3>();
  for (int64_t s = 0; s < count; ++s) make_maze(r, pairs, random, tokens[s], targets[s]);
  split.targets.masked_fill_(split.tokens.eq(Mazes::Wall), -1);
  return split;
}

/// Problems of so many pairs.
auto mazes_of(int64_t pairs) {
  return [pairs](int64_t count, int64_t size, std::mt19937_64& random) {
    return mazes(count, size, pairs, random);
  };
}

/// Rooms and the squares between them.
void check_odd(const char* name, const std::vector<int64_t>& sizes) {
  for (const int64_t size : sizes)
    DEQ_CHECK(size % 2 == 1, "{} = {}; expected an odd number", name, size);
}

ProblemMaker maker(int64_t training_pairs = 1) {
  return {Mazes::name, symbols({"#", ".", "S", "E"}), symbols({".", "*"}), mazes_of(1),
          mazes_of(training_pairs)};
}

}  // namespace

Corpus Mazes::load(const std::filesystem::path& data) const {
  validate(*this, "Mazes");
  DEQ_CHECK(valid_size == 0 || valid_size >= 3,
            "task-valid-size = {}; expected 3 to 999, or 0 for that of training", valid_size);
  check_sizes("task-test-sizes", test_sizes, 3, 999);
  check_odd("task-size", {size});
  if (valid_size > 0) check_odd("task-valid-size", {valid_size});
  check_odd("task-test-sizes", test_sizes);
  return make_problems(maker(pairs), problems, {size, valid_size, test_sizes}, data);
}

Corpus Mazes::load(const std::filesystem::path& data, const Vocabulary& inputs,
                   const Vocabulary& answers) const {
  check_vocabularies(maker(), inputs, answers);
  return load(data);
}

std::vector<WrittenProblem> Mazes::read_text(const std::string& text, const std::string& source,
                                             const Vocabulary& inputs) const {
  std::vector<WrittenProblem> problems = read_problems(text, source, inputs, dimensions);
  for (const WrittenProblem& problem : problems) {
    try {
      path_through(problem.tokens);
    } catch (const Error& error) {
      throw Error(fmt::format("{}: {}", at_line(source, problem.line), error.what()));
    }
  }
  return problems;
}

std::string Mazes::show(const Shown& shown) const {
  const Joined joined{.symbols = "", .rows = shown.picture ? "\n" : "/"};
  at::Tensor squares = shown.problem;
  if (!shown.answer.defined()) return write_symbols(squares, shown.inputs, joined);
  constexpr int64_t kPath = 4;
  const at::Tensor own = Open + (kPath - Open) * shown.answer.sign();  // negative stays negative
  squares = at::where(shown.picture ? squares.eq(Open) : squares.ne(Wall), own, squares);
  return write_symbols(squares, symbols({"#", ".", "S", "E", "*"}), joined);
}

std::string Mazes::check(const at::Tensor& problem, const at::Tensor& answer) const {
  const at::Tensor marked = answer.eq(1).logical_and(problem.ne(Wall));
  for (const auto& [square, name] : {std::pair{Start, "start"}, {End, "end"}}) {
    if (!marked.masked_select(problem.eq(square)).all().item<bool>())
      return fmt::format("the {} is not on the path", name);
  }
  // If the squares that are marked lead from start to end by themselves, and are no more than the
  // shortest path has, they are one.
  const int64_t count = marked.sum().item<int64_t>();
  const int64_t shortest = path_through(problem).sum().item<int64_t>();
  try {
    path_through(problem.masked_fill(marked.logical_not(), Wall));
  } catch (const Error&) {
    return "the path is broken";
  }
  if (count == shortest) return "";
  return fmt::format("{} squares are marked; the path has {}", count, shortest);
}

at::Tensor path_through(const at::Tensor& maze) {
  DEQ_CHECK(maze.dim() == 2 && maze.scalar_type() == at::kLong,
            "a maze of shape [{}], {}; expected (rows, columns), Long",
            fmt::join(maze.sizes(), ", "), c10::toString(maze.scalar_type()));
  const at::Tensor held = maze.contiguous();
  const int64_t H = held.size(0), W = held.size(1);
  const int64_t* square = held.data_ptr<int64_t>();
  const auto the_only = [&](int64_t kind, const char* name) {
    const int64_t count = std::count(square, square + H * W, kind);
    DEQ_CHECK(count == 1, "a maze with {} {}s; expected one", count, name);
    return int64_t(std::find(square, square + H * W, kind) - square);
  };
  const int64_t start = the_only(Mazes::Start, "start"), end = the_only(Mazes::End, "end");
  std::vector<int64_t> before(size_t(H * W), -1);
  std::deque<int64_t> open{end};
  before[size_t(end)] = end;
  while (!open.empty()) {
    const int64_t at = open.front();
    open.pop_front();
    for (const auto [dy, dx] : kSteps) {
      const int64_t y = at / W + dy, x = at % W + dx, next = y * W + x;
      if (y < 0 || y >= H || x < 0 || x >= W || square[next] == Mazes::Wall) continue;
      if (before[size_t(next)] >= 0) continue;
      before[size_t(next)] = at;
      open.push_back(next);
    }
  }
  DEQ_CHECK(before[size_t(start)] >= 0, "a maze without a path from its start to its end");
  at::Tensor path = at::zeros_like(held);
  int64_t* on_path = path.data_ptr<int64_t>();
  for (int64_t at = start;; at = before[size_t(at)]) {
    on_path[at] = 1;
    if (at == end) return path;
  }
}

}  // namespace deq
