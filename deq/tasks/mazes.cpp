#include "deq/tasks/mazes.h"

#include <array>
#include <deque>

namespace deq {
namespace {

struct Place {
  int64_t row, column;
};
constexpr std::array<Place, 4> kSteps = {{{-1, 0}, {0, 1}, {1, 0}, {0, -1}}};

/// One maze of r x r rooms into `squares`, and the squares of its path into `path`, both (2 r + 1,
/// 2 r + 1), of zeros. Of each room it is known from which one the walk came, so that the path is
/// where the ways back from start and end part.
void make_maze(int64_t r, std::mt19937_64& random, at::TensorAccessor<int64_t, 2> squares,
               at::TensorAccessor<int64_t, 2> path) {
  std::vector<int64_t> came_from(size_t(r * r), -1);  // as a step of kSteps
  std::vector<int64_t> depth(size_t(r * r), -1);
  const auto square = [](int64_t room) { return 2 * room + 1; };
  std::vector<int64_t> walk{below(r * r, random)};
  depth[size_t(walk[0])] = 0;
  squares[square(walk[0] / r)][square(walk[0] % r)] = Mazes::Open;
  while (!walk.empty()) {
    const int64_t room = walk.back(), row = room / r, column = room % r;
    std::array<int64_t, 4> ways;
    int64_t count = 0;
    for (int64_t way = 0; way < 4; ++way) {
      const int64_t y = row + kSteps[size_t(way)].row, x = column + kSteps[size_t(way)].column;
      if (y >= 0 && y < r && x >= 0 && x < r && depth[size_t(y * r + x)] < 0)
        ways[size_t(count++)] = way;
    }
    if (count == 0) {
      walk.pop_back();
      continue;
    }
    const int64_t way = ways[size_t(below(count, random))];
    const auto [dy, dx] = kSteps[size_t(way)];
    const int64_t next = (row + dy) * r + column + dx;
    squares[square(row) + dy][square(column) + dx] = Mazes::Open;
    squares[square(row + dy)][square(column + dx)] = Mazes::Open;
    came_from[size_t(next)] = way;
    depth[size_t(next)] = depth[size_t(room)] + 1;
    walk.push_back(next);
  }
  int64_t a = below(r * r, random), b = below(r * r - 1, random);
  if (b >= a) ++b;
  squares[square(a / r)][square(a % r)] = Mazes::Start;
  squares[square(b / r)][square(b % r)] = Mazes::End;
  path[square(a / r)][square(a % r)] = path[square(b / r)][square(b % r)] = 1;
  while (a != b) {
    int64_t& deeper = depth[size_t(a)] > depth[size_t(b)] ? a : b;
    const auto [dy, dx] = kSteps[size_t(came_from[size_t(deeper)])];
    path[square(deeper / r) - dy][square(deeper % r) - dx] = 1;
    deeper -= dy * r + dx;
    path[square(deeper / r)][square(deeper % r)] = 1;
  }
}

Split mazes(int64_t count, int64_t size, std::mt19937_64& random) {
  const int64_t r = (size + 1) / 2, side = Mazes::squares(size);
  Split split{.tokens = at::zeros({count, side, side}, at::kLong),
              .targets = at::zeros({count, side, side}, at::kLong),
              .answer = kEveryPosition};
  auto tokens = split.tokens.accessor<int64_t, 3>(), targets = split.targets.accessor<int64_t, 3>();
  for (int64_t s = 0; s < count; ++s) make_maze(r, random, tokens[s], targets[s]);
  split.targets.masked_fill_(split.tokens.eq(Mazes::Wall), -1);
  return split;
}

ProblemMaker maker() {
  return {Mazes::name, symbols({"#", ".", "S", "E"}), symbols({".", "*"}), mazes};
}

}  // namespace

Corpus Mazes::load(const std::filesystem::path& data) const {
  validate(*this, "Mazes");
  for (const int64_t other : test_sizes)
    DEQ_CHECK(other >= 3 && other <= 999, "task-test-sizes = {}; expected 3 to 999", other);
  return make_problems(maker(), problems, size, test_sizes, data);
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
