#pragma once

#include <torch/nn/module.h>

#include <memory>
#include <vector>

#include "deq/base/fields.h"
#include "deq/base/map.h"
#include "deq/ops/panels.h"

namespace deq {

using ops::WeightType;
template <>
struct Names<WeightType> {
  static constexpr const char* values[] = {"exact", "bfloat16"};
};

/// What a segment may see of those before it; undefined tensors: nothing. Never carries a tape.
/// A recurrent cell keeps one state here, whatever number of positions it stands for.
struct History {
  at::Tensor z;  ///< (B, M, .) what f was given at past positions: equilibria, or a level's input
  at::Tensor x;  ///< (B, M, X) the inputs they belong to, where f needs them
  /// (B, M, D) keys and values of those positions, in place of z and x: kept in evaluation mode
  /// without a tape, when the weights stay as they are, and never computed again.
  at::Tensor k, v;
  /// Of each sample, how many of the first positions here are none: its past is shorter than that
  /// of others in the batch. Empty: all 0.
  std::vector<int64_t> hidden = {};
  /// A checksum of the weights that gave all this in evaluation mode without a tape; 0: not known.
  uint64_t weights = 0;

  int64_t length() const { return k.defined() ? k.size(1) : z.defined() ? z.size(1) : 0; }
};

/// f(., x) of one segment, with everything that does not depend on z computed once: the injected
/// input, the history's projections, normalised weights and, in training mode, the dropout masks.
/// Callable.
struct Bound {
  Map f;  ///< (B, T, D) -> (B, T, D); of a causal cell it has parts (Map::part)

  /// The history for the segment after this one, for the states z (B, T, D) that f was given: of
  /// at most `length` positions, or the one state that a recurrent cell keeps; 0: none.
  std::function<History(const at::Tensor& z, int64_t length)> extend;

  at::Tensor operator()(const at::Tensor& z) const { return f(z); }
};

class Decoder;

/// The inputs (n, 1, X) that some tokens stand for, always the same of a token.
using InputOf = std::function<at::Tensor(const std::vector<int64_t>& tokens)>;

/// The only virtual interface: a cell f(z, x) over sequences. A cell cannot tell that it is being
/// solved, nor at which level of an explicit network it stands.
class Cell : public torch::nn::Module {
 public:
  /// One bound f for each history: the levels of a weight-tied network, which share weights, input
  /// x (B, T, X) and masks, while each sees its own past. Gradients reach x and the parameters, not
  /// the histories. Throws deq::Error for shapes that do not fit.
  virtual std::vector<Bound> bind_levels(const at::Tensor& x,
                                         const std::vector<History>& levels) = 0;
  Bound bind(const at::Tensor& x, const History& history) {
    return std::move(bind_levels(x, {history}).front());
  }

  /// Lets these rows of a batch see only the latest `kept` positions of a history; with 0 they
  /// begin anew, and what is bound gives them what it gives rows without history. By default the
  /// other positions are hidden; a cell whose history is a state empties it at 0, and keeps it
  /// otherwise.
  virtual void forget(History& history, const std::vector<int64_t>& rows, int64_t kept) const;

  /// f of one position of each of several texts that go on one by one (decoder.h), behind these
  /// pasts of one text each, of which at most `length` positions are to be seen. By default each
  /// text's f is bound by itself; a cell that can does better. The cell is causal and in evaluation
  /// mode.
  virtual std::unique_ptr<Decoder> decode(const std::vector<History>& pasts, int64_t length,
                                          const InputOf& input);

  /// What the rest of a model reads of a state: (B, T, D) -> (B, T, O).
  virtual at::Tensor output(const at::Tensor& z) const { return z; }

  /// Whether position t of f(z, x) depends on positions <= t only.
  virtual bool causal() const = 0;

  /// Whether f depends on x. One that does not has no equilibrium of its own: it is a level of an
  /// explicit network whose state starts at x.
  virtual bool injects() const = 0;

  /// Weights ~ N(0, std), normalised or not; biases 0.
  virtual void initialise(double std) = 0;

  /// How f reads the weights of its products from now on, in evaluation mode without a tape:
  /// rounded ones are another f, whose equilibria and residuals are computed as exactly as before.
  /// What is bound already stays as it is; not while another thread binds. False, and nothing
  /// changes, where the cell cannot.
  virtual bool read_weights(WeightType type) { return type == WeightType::Exact; }

  /// Floating-point operations of one evaluation of f on `batch` segments of `positions` behind
  /// `past` positions: those of its products, by which implementations are compared; NaN where
  /// nobody has counted them.
  virtual double operations(int64_t batch, int64_t positions, int64_t past) const;

  /// Where a state is one for each place and symbol, of how many symbols: x and z are (B, T,
  /// symbols times something). 0: one for each place.
  virtual int64_t symbols() const { return 0; }

  virtual int64_t input_width() const = 0;                        ///< X
  virtual int64_t state_width() const = 0;                        ///< D
  virtual int64_t output_width() const { return state_width(); }  ///< O
};

/// Where in a model a cell stands.
struct CellPlace {
  int64_t level = 0;      ///< of an untied stack; 0 for all others
  bool injection = true;  ///< whether f is to depend on x; cells that cannot do otherwise ignore it
  int64_t symbols = 0;    ///< that the model answers among; 0: not known
};

/// The last `length` positions of `old` (may be undefined) followed by `fresh`, (B, ., W), without
/// a tape and in memory of their own.
at::Tensor latest(const at::Tensor& old, const at::Tensor& fresh, int64_t length);

/// A history's part (B, ., W) with zeros in these rows; undefined where it is.
at::Tensor emptied(const at::Tensor& part, const std::vector<int64_t>& rows);

/// `hidden` of a history without its first positions.
std::vector<int64_t> still_hidden(std::vector<int64_t> hidden, int64_t forgotten);

/// Throws deq::Error where a history is known to stem from other weights than `contents`, as
/// History::weights has them: what follows would be of neither.
void check_weights(const char* cell, const History& history, uint64_t contents);

/// Throws deq::Error unless x is (batch, positions, width) and the histories are of that batch,
/// their states `state_width` wide, their inputs `width`.
void check_bound_shapes(const char* cell, const at::Tensor& x, int64_t width, int64_t state_width,
                        const std::vector<History>& levels);

}  // namespace deq
