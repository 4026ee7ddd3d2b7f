#pragma once

#include "deq/tasks/problems.h"
#include "deq/tasks/written.h"

namespace deq {

/// Mazes (Schwarzschild et al. 2021): r x r rooms, r = (size + 1) / 2, joined by a depth-first walk
/// so that one path leads from each to each; drawn as a grid of (2 r + 1)^2 squares, one for each
/// room, wall and passage. Start and end are two rooms; in training, of 1 to `pairs` pairs of rooms
/// the one that lies farthest apart. The answer tells of each open square whether the path between
/// them crosses it; walls are not scored. (The published pictures are the same grids with every
/// square doubled.)
struct Mazes {
  static constexpr const char* name = "mazes";
  static constexpr Unit unit = Unit::Symbol;
  static constexpr int64_t dimensions = 2;
  enum Square : int64_t { Wall, Open, Start, End };
  int64_t size = 9;
  int64_t pairs = 1;
  int64_t valid_size = 0;
  std::vector<int64_t> test_sizes = {13, 17, 25, 33, 59};
  ProblemOptions problems;

  static void fields(auto& self, auto&& field) {
    field("size", self.size, "of training mazes: (size + 1) / 2 rooms a side", between(3, 999));
    field("pairs", self.pairs,
          "of rooms, of which a training maze draws 1 to so many and takes the farthest apart",
          between(1, 1 << 16));
    field("valid_size", self.valid_size, "of validation mazes; 0: as in training", between(0, 999));
    field("test_sizes", self.test_sizes, "of the mazes of further test sets");
    field("", self.problems);
  }

  static int64_t squares(int64_t size) { return 2 * ((size + 1) / 2) + 1; }  ///< a side
  int64_t known_vocabulary() const { return 4; }
  Corpus load(const std::filesystem::path& data) const;
  /// In a run's vocabularies, which must be this task's own.
  Corpus load(const std::filesystem::path& data, const Vocabulary& inputs,
              const Vocabulary& answers) const;

  /// Rows of squares, a line each or joined by '/'. Throws deq::Error where there is not one start,
  /// one end and a path between them.
  std::vector<WrittenProblem> read_text(const std::string& text, const std::string& source,
                                        const Vocabulary& inputs) const;
  /// A '*' for each square of the path. A picture has start and end besides.
  std::string show(const Shown& shown) const;
  /// Whether the squares of the answer that are no walls are a shortest path.
  std::string check(const at::Tensor& problem, const at::Tensor& answer) const;
};

/// The squares of the shortest path of a maze (H, W) from Start to End, both included, 1, all
/// others 0, found by a search in breadth. Throws deq::Error for a grid without one start and one
/// end, and for one without a path.
at::Tensor path_through(const at::Tensor& maze);

}  // namespace deq
