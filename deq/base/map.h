// The first of the five ideas: what an equilibrium is an equilibrium of.
#pragma once

#include <ATen/core/Tensor.h>

#include <concepts>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

namespace deq {

/// z -> f(z, x), with x, the history and the weights already bound; any callable. Must keep the
/// shape and the type of z; where autocast is on, f's value is converted to the type of z.
///
/// Solvers keep what they gave and what they were given. So a plain callable may work in place on
/// its z (it is given a copy then), and may return z, what it captured, or one buffer again and
/// again (what it returns is copied then): whether it does is seen at its calls, and costs nothing
/// where it does not. One that works in place only later than at its first call is an error.
class Map {
 public:
  using Evaluate = std::function<at::Tensor(const at::Tensor& z)>;

  /// The evaluations of one solve, without a tape. The first done[b] positions (dimension 1) of
  /// sample b, and all that they depend on, hold what they held at the evaluation before this one,
  /// so that their rows of f(z) are known; 0 at the first evaluation. In a solve where positions
  /// depend on later ones (Order::Backward) it is the last done[b] positions. Empty: all 0. Not for
  /// several threads.
  using Series = std::function<at::Tensor(const at::Tensor& z, const std::vector<int64_t>& done)>;

  /// What splitting methods (solvers/splitting.h) need of an f(z) = s(W z + b), where s is, number
  /// by number, the proximal operator of a convex function h, and I - W is strongly monotone. Its
  /// tensors hold the numbers of a state in any shape, and results have that shape.
  struct Resolvent {
    /// v -> W v + b
    std::function<at::Tensor(const at::Tensor& v)> argument;
    /// alpha -> (w -> (I + alpha (I - W))^-1 (w + alpha b)): what an alpha takes is paid once.
    std::function<std::function<at::Tensor(const at::Tensor& w)>(double alpha)> linear;
    /// (w, alpha) -> the proximal operator of alpha h at w; s(w) for alpha = 1.
    std::function<at::Tensor(const at::Tensor& w, double alpha)> proximal;
    double margin = 0;   ///< m > 0 with <v, (I - W) v> >= m |v|^2
    double norm = 0;     ///< |I - W|, the largest singular value, to a few per cent
    bool outer = false;  ///< f is z -> W s(z) + b instead, as adjoints are
  };

  /// f at one point: f(z) with its tape, and u -> J^T u, J = df/dz there, without one, in which
  /// positions depend on later ones where f is causal. Holds what both need.
  ///
  /// `solve`, where the owner of f gives it, is u of u = J^T u + g at the equilibrium, found by
  /// other means than a solver's. `resolvent` is that of u -> J^T u + g.
  struct Linearised {
    at::Tensor fz;
    Series transposed;
    std::function<at::Tensor(const at::Tensor& g)> solve = {};
    std::function<Resolvent(const at::Tensor& g)> resolvent = {};
  };

  /// f at positions first .. first + count - 1 alone, where those before hold `before` (B, first,
  /// D): the same rows as f gives.
  using Part = std::function<Map(const at::Tensor& before, int64_t first, int64_t count)>;

  Map() = default;
  template <class F>
  requires(!std::derived_from<std::remove_cvref_t<F>, Map> &&
           std::is_invocable_r_v<at::Tensor, F&, const at::Tensor&>) Map(F f)
      : Map(guarded(std::move(f))) {}  // NOLINT: any callable is a Map
  /// For an f that leaves z as it is and returns memory that nobody else holds: it is not watched.
  /// `series` starts a solve of an f that can leave out what is done; empty: it cannot.
  Map(Evaluate f, std::function<Series()> series)
      : evaluate_(std::move(f)), series_(std::move(series)) {}

  /// Declares that on a GPU each evaluation launches the same work, whatever z holds, and neither
  /// waits for it nor copies from the host: it can be recorded once as a CUDA graph and replayed.
  Map& set_recordable(bool recordable) {
    recordable_ = recordable;
    return *this;
  }
  bool recordable() const { return recordable_; }

  /// For an f that has products of its own with its Jacobian, that can leave out what is done.
  Map& set_linearise(std::function<Linearised(const at::Tensor& z)> linearise) {
    linearise_ = std::move(linearise);
    return *this;
  }
  /// Declares that position t of f depends on positions up to t only, and can be had alone;
  /// `strictly`: on those before t only, so that f behind equilibria is its own equilibrium.
  Map& set_part(Part part, bool strictly = false) {
    part_ = std::move(part);
    strictly_causal_ = strictly;
    return *this;
  }
  /// Empty where f is not causal.
  const Part& part() const { return part_; }
  bool strictly_causal() const { return strictly_causal_; }

  /// For an f whose equilibrium splitting methods can find; made for each solve that wants it.
  Map& set_resolvent(std::function<Resolvent()> resolvent) {
    resolvent_ = std::move(resolvent);
    return *this;
  }
  /// Empty where f has none.
  const std::function<Resolvent()>& resolvent() const { return resolvent_; }

  /// For an f(z) = z - eta grad E(z) with the same eta in all of a sample: the energies E (B) of a
  /// state's samples, by which a method may tell where a step led (solvers/descent.h). The Jacobian
  /// of such an f is symmetric.
  Map& set_energy(Evaluate energy) {
    energy_ = std::move(energy);
    return *this;
  }
  /// Empty where f is not known to have one.
  const Evaluate& energy() const { return energy_; }

  /// At z, which requires a gradient, with gradients on. Where f does not depend on z the products
  /// are zero.
  Linearised linearise(const at::Tensor& z) const;

  /// The same f of LibTorch's operators alone, for an f of kernels: where a tape is to be
  /// differentiated again, a kernel's node would have to evaluate that anyway.
  Map& set_reference(Evaluate reference) {
    reference_ = std::move(reference);
    return *this;
  }
  /// f(z) for a tape that is to be differentiated again.
  at::Tensor differentiable(const at::Tensor& z) const;

  /// Throws deq::Error where f returns nothing.
  at::Tensor operator()(const at::Tensor& z) const;
  explicit operator bool() const { return bool(evaluate_); }

  /// As if f were evaluated as a whole each time: row for row the same numbers.
  Series series() const;

 private:
  static Map guarded(Evaluate f);

  Evaluate evaluate_, reference_, energy_;
  std::function<Series()> series_;
  std::function<Linearised(const at::Tensor&)> linearise_;
  std::function<Resolvent()> resolvent_;
  Part part_;
  bool strictly_causal_ = false;
  bool recordable_ = false;
};

}  // namespace deq
