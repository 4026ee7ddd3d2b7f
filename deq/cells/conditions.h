// Cells without an f(z, x): what their state is a condition of its own says, the optimum of a
// relaxation or of a program with learned data. Made where these are solved,
// deq/layers/condition.h.
#pragma once

#include "deq/base/fields.h"
#include "deq/cells/cell.h"

namespace deq {

/// Learned clauses over the symbols of all places (layers/maxsat.h): n = places x symbols
/// variables, of which those of given places are known. As for Sudoku in SATNet (Wang, Donti,
/// Wilder and Kolter 2019). The state is (B, places, S), each symbol's share of truth.
struct LearnedClauses {
  static constexpr const char* name = "maxsat";
  static constexpr bool grids = true;
  int64_t places = 81;
  int64_t auxiliary = 300;
  int64_t clauses = 600;
  int64_t memory = 5;

  static void fields(auto& self, auto&& field) {
    field("places", self.places, "of a problem, all of one size", between(1, 1 << 16));
    field("auxiliary", self.auxiliary, "variables beside those of places and symbols",
          between(0, 1 << 16));
    field("clauses", self.clauses, "that are learned", between(1, 1 << 20));
    field("memory", self.memory, "sweeps that Anderson's method mixes; 0: plain sweeps",
          between(0, 16));
  }

  bool is_causal() const { return false; }
  std::shared_ptr<Cell> make(const CellPlace& place) const;
};

/// The same few clauses along a sequence of bits, as for parity in SATNet: z_1 = x_1, and z_t is
/// the variable that the clauses leave open beside z_{t-1}, rounded, and x_t. So a gradient reaches
/// the clauses through each link by itself, and tells nothing until the links before it are right.
/// Where, in training, the mean loss of the last third of `trial` steps is no better than that of
/// guessing (above 0.98 log 2), clauses are drawn anew; after that many steps they are judged
/// again. The state is (B, T, 1).
struct ChainedClauses {
  static constexpr const char* name = "maxsat-chain";
  int64_t auxiliary = 4;
  int64_t clauses = 4;
  int64_t memory = 5;
  int64_t trial = 30;

  static void fields(auto& self, auto&& field) {
    field("auxiliary", self.auxiliary, "variables beside those of places and symbols",
          between(0, 1 << 16));
    field("clauses", self.clauses, "that are learned", between(1, 1 << 20));
    field("memory", self.memory, "sweeps that Anderson's method mixes; 0: plain sweeps",
          between(0, 16));
    field("trial", self.trial,
          "steps of training after which clauses that are no better than guessing are drawn anew; "
          "0: never",
          between(0, 1 << 20));
  }

  bool is_causal() const { return true; }
  std::shared_ptr<Cell> make(const CellPlace& place) const;
};

/// A quadratic program with learned equalities, as for Sudoku in OptNet (Amos and Kolter 2017): the
/// state y (B, places, S) of
///
///     minimise penalty / 2 |y|^2 - x'y   where   A y = A e^r,  y >= 0
///
/// x is 1 where a symbol is given; A (equalities, n) and r (n), n = places x symbols, are learned,
/// so that e^r meets the constraints and there is always a solution. Symbols are answered by a
/// softmax of `sharpness` y.
struct LearnedProgram {
  static constexpr const char* name = "optnet";
  static constexpr bool grids = true;
  int64_t places = 16;
  int64_t equalities = 40;
  double penalty = 0.1;
  double sharpness = 10;

  static void fields(auto& self, auto&& field) {
    field("places", self.places, "of a problem, all of one size", between(1, 1 << 12));
    field("equalities", self.equalities, "rows of A", between(1, 1 << 12));
    field("penalty", self.penalty, "of |y|^2 / 2", above(0));
    field("sharpness", self.sharpness, "of the softmax of y that answers", above(0));
  }

  bool is_causal() const { return false; }
  std::shared_ptr<Cell> make(const CellPlace& place) const;
};

}  // namespace deq
