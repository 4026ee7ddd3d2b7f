#pragma once

#include <memory>
#include <vector>

#include "deq/cells/cell.h"

namespace deq {

/// A cell's f of one position of each of B texts, in evaluation mode without a tape: each text
/// stands behind a past of its own, and goes on when it is ready, while the others stay where they
/// are. What a text is given has the bits that it has alone. Weights that change meanwhile are an
/// error (deq::Error), of pasts() at the latest. The cell must outlive it. Not for several threads.
class Decoder {
 public:
  virtual ~Decoder() = default;

  /// Gives these texts the inputs of their positions, by token.
  virtual void enter(const std::vector<int64_t>& texts, const std::vector<int64_t>& tokens) = 0;

  /// f(z), (B, 1, D) to (B, 1, D), of the texts whose `done` is 0, which have been given inputs;
  /// anything for the others.
  virtual at::Tensor evaluate(const at::Tensor& z, const std::vector<int64_t>& done) = 0;

  /// These texts' positions hold z (n, 1, D) for good: they belong to the past from now on.
  virtual void advance(const std::vector<int64_t>& texts, const at::Tensor& z) = 0;

  /// The pasts of all texts, as `extend` would have left them, of one text each.
  virtual std::vector<History> pasts() = 0;
};

/// When a decoder reads all weights again, to see whether they have changed: once in so many tokens
/// of a text.
class Rounds {
 public:
  explicit Rounds(size_t texts) : tokens_(texts, 0) {}

  /// A text is given another token: whether it is time.
  bool due(int64_t text);

 private:
  std::vector<int64_t> tokens_;  // of each text since
};

/// For any cell: each text has an f of its own, bound anew for every position.
std::unique_ptr<Decoder> rebinding_decoder(Cell& cell, std::vector<History> pasts, int64_t length,
                                           InputOf input);

}  // namespace deq
