#pragma once

#include "deq/base/fields.h"
#include "deq/cells/cell.h"
#include "deq/cells/linear.h"

namespace deq {

/// How a state meets an input.
enum class Meeting { Additive, Bilinear };
template <>
struct Names<Meeting> {
  static constexpr const char* values[] = {"additive", "bilinear"};
};

/// A recurrence as an equilibrium: position t of f is a map of the state before it and of x_t,
///
///     f(z)_t = N(A g(z_{t-1}, x_t) + a),    g(s, x) = relu(W s + U x + b)     additive
///                                           g(s, x) = (W s) * (U x + b)       bilinear
///
/// N an RMS norm without weights, z_{-1} a parameter where there is no past. Its Jacobian is
/// nilpotent: plain iteration is exact after as many steps as there are positions, `--solver sweep`
/// after one evaluation, and the implicit gradient is back-propagation through time. Only the
/// bilinear map can compose what it reads (Sutskever, Martens, Hinton 2011, have it as a
/// multiplicative recurrence): a product of permutations is not a sum.
struct Shift {
  static constexpr const char* name = "shift";
  int64_t width = 64;
  int64_t inner = 128;
  Meeting meeting = Meeting::Bilinear;

  static void fields(auto& self, auto&& field) {
    field("width", self.width, "D, features of the state", between(1, 1 << 20));
    field("inner", self.inner, "units of g", between(1, 1 << 24));
    field("meeting", self.meeting, "how the state before meets the input");
  }

  bool is_causal() const { return true; }
  std::shared_ptr<Cell> make(const CellPlace& place) const;
};

/// Its history is the state of one position.
class ShiftCell : public Cell {
 public:
  explicit ShiftCell(const Shift& options);

  std::vector<Bound> bind_levels(const at::Tensor& x, const std::vector<History>& levels) override;
  bool causal() const override { return true; }
  bool injects() const override { return true; }
  void initialise(double std) override;
  double operations(int64_t batch, int64_t positions, int64_t past) const override;
  int64_t input_width() const override { return options_.width; }
  int64_t state_width() const override { return options_.width; }

 private:
  struct Level;

  Shift options_;
  std::shared_ptr<Linear> inject_, state_, output_;
  at::Tensor initial_;  // (D)
};

}  // namespace deq
