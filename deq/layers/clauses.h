// Clauses as text: DIMACS's formats for satisfiability problems, plain (cnf) and weighted (wcnf, in
// the form with a header and in that of the MaxSAT evaluations from 2022 on).
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace deq {

/// Clauses as they were read. Variables are counted from 1; a negative literal is a negation.
struct Clauses {
  int64_t variables = 0;
  std::vector<std::vector<int64_t>> literals;  ///< none twice, no variable with its negation
  std::vector<double> weights;                 ///< 1 of plain clauses; `hard` of hard ones
  double hard = 0;                             ///< 1 + the sum of the soft weights
  int64_t tautologies = 0;                     ///< left out: always satisfied

  /// S (1 + variables, clauses) double: column j is (-1, sign of each literal) sqrt(w_j) /
  /// sqrt(4 |clause|), rows truth and variables.
  at::Tensor matrix() const;
};

/// Reads `text`: comments (c), a header `p cnf VARIABLES CLAUSES` or `p wcnf VARIABLES CLAUSES
/// [TOP]`, clauses that end in 0 and may run over lines. Weighted clauses begin with their weight;
/// TOP and more is hard. Without a header, one clause a line with its weight, `h` for hard ones.
/// Throws deq::Error that begins with `source` and the line's number: for a literal beyond the
/// variables, an empty clause, a weight that is not positive, a last clause without 0, another
/// number of clauses than the header's.
Clauses read_clauses(const std::string& text, const std::string& source);

}  // namespace deq
