// Implicit models that are well posed (El Ghaoui, Gu, Travacca, Askari, Tsai 2019):
//
//     x = s(A x + B u + b)
//
// with s of slopes in [0, 1], number by number, has exactly one solution, which plain iteration
// finds from any start, where |A| has an infinity norm or, weaker, a largest eigenvalue below 1.
#pragma once

#include "deq/base/fields.h"
#include "deq/cells/activation.h"
#include "deq/cells/cell.h"
#include "deq/cells/linear.h"

namespace deq {

/// What holds of A. infinity-norm: sum_j |a_ij| <= kappa, a convex set, and f a contraction;
/// perron-frobenius: lambda_pf(|A|) <= kappa, which a scaling of the state makes the former, and
/// which A of any size meet that are triangular by blocks.
enum class WellPosedness { InfinityNorm, PerronFrobenius };
template <>
struct Names<WellPosedness> {
  static constexpr const char* values[] = {"infinity-norm", "perron-frobenius"};
};

/// At each position by itself: a sequence is so many rows.
struct WellPosed {
  static constexpr const char* name = "well-posed";
  int64_t width = 64;
  int64_t input = 0;
  double kappa = 0.95;
  WellPosedness condition = WellPosedness::InfinityNorm;
  Activation activation = Activation::Relu;
  int64_t direct = 64;

  static void fields(auto& self, auto&& field) {
    field("width", self.width, "n, features of the state", between(1, 1 << 16));
    field("input", self.input, "features of u; 0: as many as width", between(0, 1 << 20));
    field("kappa", self.kappa, "bound of what the condition bounds; (0, 1)",
          Range{0, 1, true, true});
    field("condition", self.condition, "what holds of A");
    field("activation", self.activation, "s");
    field("direct", self.direct,
          "widths up to which the adjoint is solved by elimination, sample by sample; 0: none",
          between(0, 1 << 16));
  }

  bool is_causal() const { return true; }
  std::shared_ptr<Cell> make(const CellPlace& place) const;
};

/// Without a history. f is of A as far as it meets the condition, and of its projection elsewhere:
/// while training, with a tape, the parameter itself is projected when it is next bound, which is
/// after each step of the optimiser; otherwise f is of project_rows_l1(A), with its derivative.
class WellPosedCell : public Cell {
 public:
  explicit WellPosedCell(const WellPosed& options);

  std::vector<Bound> bind_levels(const at::Tensor& x, const std::vector<History>& levels) override;
  bool causal() const override { return true; }
  bool injects() const override { return true; }
  void initialise(double std) override;
  double operations(int64_t batch, int64_t positions, int64_t past) const override;
  int64_t input_width() const override { return options_.input ? options_.input : options_.width; }
  int64_t state_width() const override { return options_.width; }

  /// Projects A in place; nothing is written where it meets the condition. Throws deq::Error for an
  /// A that is not finite.
  void project();
  /// A (n, n) as f has it, taped. Of condition perron-frobenius the projection is in the norm that
  /// the eigenvector of |A| scales, and its derivative that at this scaling.
  at::Tensor weight() const;
  /// (I - |A|)^-1 |B| (n, X) >= 0: |x(u) - x(u')| <= that |u - u'|, number by number, in double.
  at::Tensor sensitivity() const;

 private:
  WellPosed options_;
  at::Tensor a_;                    // (n, n)
  std::shared_ptr<Linear> inject_;  // B (n, X) and b
};

}  // namespace deq
