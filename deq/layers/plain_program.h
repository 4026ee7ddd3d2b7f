// A program that was made on the way: it owns its numbers.
#pragma once

#include <vector>

#include "deq/layers/exact_program.h"

namespace deq {

/// Built row by row, then solved.
struct PlainProgram {
  ops::QuadraticShape shape;
  std::vector<double> Q, q, A, b, G, h;

  explicit PlainProgram(int64_t n) : shape{n, 0, 0}, Q(size_t(n * n), 0.0), q(size_t(n), 0.0) {}
  void curve(int64_t i, double by) { Q[size_t(i * shape.n + i)] = by; }
  /// Adds row'z = right; `row` (n).
  void equal(const double* row, double right) {
    A.insert(A.end(), row, row + shape.n);
    b.push_back(right);
    shape.p += 1;
  }
  /// Adds row'z <= right.
  void below(const double* row, double right) {
    G.insert(G.end(), row, row + shape.n);
    h.push_back(right);
    shape.m += 1;
  }
  /// z (n); empty unless it was found. A unique solution is expected.
  std::vector<double> solve(const ops::QuadraticLimits& limits) const;
};

}  // namespace deq
