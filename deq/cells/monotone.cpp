#include "deq/cells/monotone.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/types.h>

#include <mutex>

#include "deq/ops/elimination.h"
#include "deq/ops/weight_gradient.h"

namespace deq {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

struct MonotoneWeight : torch::autograd::Function<MonotoneWeight> {
  static Tensor forward(AutogradContext* context, const Tensor& A, const Tensor& B, double margin) {
    context->save_for_backward({A});
    Tensor W = B - B.t() - ops::weight_gradient(A, A);
    W.diagonal().add_(1 - margin);
    return W;
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    if (!gradients[0].defined()) return variable_list(3);
    const Tensor A = context->get_saved_variables()[0];
    const Tensor both = (gradients[0] + gradients[0].t()).contiguous();  // symmetric
    return {-ops::weight_gradient(A.t().contiguous(), both), gradients[0] - gradients[0].t(), {}};
  }
};

/// What the splitting of f and that of its adjoint have in common: of W^T both are transposed.
class Inverses {
 public:
  /// |I - W|.
  double norm(const Tensor& W) {
    const std::lock_guard lock(mutex_);
    if (norm_ < 0) norm_ = ops::largest_singular_value(at::eye(W.size(0), W.options()) - W);
    return norm_;
  }
  /// (I + alpha (I - W))^-1.
  Tensor inverse(const Tensor& W, double alpha) {
    const std::lock_guard lock(mutex_);
    if (alpha_ != alpha) {
      inverse_ = ops::inverse((1 + alpha) * at::eye(W.size(0), W.options()) - alpha * W);
      alpha_ = alpha;
    }
    return inverse_;
  }

 private:
  std::mutex mutex_;
  double norm_ = -1, alpha_ = 0;
  Tensor inverse_;
};

/// s(W z + c) of some positions, fixed for a solve.
struct Affine {
  ops::AffineWeight weight;
  Tensor c;  // (B, T, D)
  Activation s;
  double margin;
  int64_t direct;
  std::shared_ptr<Inverses> inverses;

  Tensor argument(const Tensor& z) const {
    return ops::affine(z.reshape(c.sizes()), weight, c).view(z.sizes());
  }
  Tensor operator()(const Tensor& z) const { return activated(s, argument(z)); }

  Map::Resolvent resolvent() const {
    Map::Resolvent found = resolvent_of(without_tape(), /*transposed=*/false);
    found.proximal = [s = s](const Tensor& w, double alpha) { return proximal(s, w, alpha); };
    return found;
  }

  Map::Linearised linearise(const Tensor& z) const {
    const Tensor y = argument(z), slope = slope_of(s, y);
    Affine back = without_tape();
    const Tensor W = back.weight.weight;
    back.weight = ops::affine_weight(W.t());
    Map::Linearised at_z;
    at_z.fz = activated(s, y);
    at_z.transposed = [back, through = passed_through(s, y)](const Tensor& u,
                                                             const std::vector<int64_t>&) {
      return ops::affine(through(u), back.weight, {});
    };
    if (c.size(2) <= direct)
      at_z.solve = [back, slope, W](const Tensor& g) { return solved(back, slope, W, g); };
    if (margin > 0)
      at_z.resolvent = [back, slope](const Tensor& g) {
        Affine adjoint = back;
        adjoint.c = g;
        return adjoint_resolvent(adjoint, slope);
      };
    return at_z;
  }

  Affine part(int64_t first, int64_t count) const {
    Affine own = *this;
    own.c = c.narrow(1, first, count);
    return own;
  }

  static Map map(const Affine& of) {
    const auto f = std::make_shared<const Affine>(of);
    Map map([f](const Tensor& z) { return (*f)(z); }, {});
    map.set_part([f](const Tensor&, int64_t first, int64_t count) {
      return Affine::map(f->part(first, count));
    });
    map.set_linearise([f](const Tensor& z) { return f->linearise(z); });
    if (f->margin > 0) map.set_resolvent([f] { return f->resolvent(); });
    return map;
  }

 private:
  Affine without_tape() const {
    Affine own = *this;
    own.weight.weight = own.weight.weight.detach();
    own.c = c.detach();
    return own;
  }

  /// u = W^T v + g with (I - diag(slope) W^T) v = diag(slope) g.
  static Tensor solved(const Affine& back, const Tensor& slope, const Tensor& W, const Tensor& g) {
    const int64_t D = W.size(0);
    const Tensor v = ops::solve_masked(W, slope.reshape({-1, D}), g.reshape({-1, D}));
    const Tensor u = ops::affine(v.view(g.sizes()), back.weight, g);
    return at::where(u.isfinite().all(-1, true), u, g);
  }

  /// All but the proximal operator; `transposed` where `of` has W^T.
  static Map::Resolvent resolvent_of(const Affine& of, bool transposed) {
    const Tensor W = transposed ? of.weight.weight.t() : of.weight.weight;
    Map::Resolvent found;
    found.argument = [of](const Tensor& v) { return of.argument(v); };
    found.linear = [of, W, transposed](double alpha) -> std::function<Tensor(const Tensor&)> {
      const Tensor inverse = of.inverses->inverse(W, alpha);
      Affine linear = of;
      linear.weight = ops::affine_weight(transposed ? inverse.t() : inverse);
      linear.c = ops::affine(alpha * of.c, linear.weight, {});
      return [linear](const Tensor& w) { return linear.argument(w); };
    };
    found.margin = of.margin;
    found.norm = of.inverses->norm(W);
    return found;
  }

  /// Of u -> W^T diag(slope) u + g: v = slope u is the proximal operator of alpha (1 / slope - 1).
  static Map::Resolvent adjoint_resolvent(const Affine& adjoint, const Tensor& slope) {
    Map::Resolvent found = resolvent_of(adjoint, /*transposed=*/true);
    found.proximal = [slope](const Tensor& w, double alpha) {
      const Tensor own = slope.view(w.sizes());
      return alpha == 1 ? own * w : own * w / (own + alpha * (1 - own));
    };
    found.outer = true;
    return found;
  }
};

}  // namespace

Tensor monotone_weight(const Tensor& A, const Tensor& B, double margin) {
  return MonotoneWeight::apply(A, B, margin);
}

Map affine_equilibrium(const Tensor& W, const Tensor& c, Activation s, double margin,
                       int64_t direct) {
  DEQ_CHECK(W.dim() == 2 && c.dim() == 3 && W.size(0) == W.size(1) && c.size(2) == W.size(0),
            "affine_equilibrium: W of shape [{}], c [{}]; expected (D, D) and (B, T, D)",
            fmt::join(W.sizes(), ", "), fmt::join(c.sizes(), ", "));
  return Affine::map({ops::affine_weight(W), c, s, margin, direct, std::make_shared<Inverses>()});
}

std::shared_ptr<Cell> Monotone::make(const CellPlace&) const {
  return std::make_shared<MonotoneCell>(*this);
}

MonotoneCell::MonotoneCell(const Monotone& options) : options_(options) {
  validate(options, "Monotone");
  const int64_t D = options.width;
  a_ = register_parameter("A", torch::zeros({D, D}));
  b_ = register_parameter("B", torch::zeros({D, D}));
  inject_ = register_module("inject", std::make_shared<Linear>(input_width(), D, /*with_bias=*/true,
                                                               /*normalised=*/false));
  initialise(0.02);
}

void MonotoneCell::initialise(double std) {
  c10::AutoGradMode no_tape(false);
  a_.normal_(0, std);
  b_.normal_(0, std);
  inject_->initialise(std);
}

double MonotoneCell::operations(int64_t batch, int64_t positions, int64_t) const {
  return 2.0 * double(batch * positions) * double(options_.width * options_.width);
}

Tensor MonotoneCell::weight() const { return monotone_weight(a_, b_, options_.margin); }

double MonotoneCell::sensitivity() const {
  const Tensor U = inject_->weight().detach().to(at::kDouble);
  return std::get<0>(at::linalg_eigh(at::mm(U, U.t()))).max().clamp_min(0).sqrt().item<double>() /
         options_.margin;
}

std::vector<Bound> MonotoneCell::bind_levels(const Tensor& x, const std::vector<History>& levels) {
  check_bound_shapes("MonotoneCell", x, input_width(), options_.width, levels);
  const Tensor injected = ops::affine(x, ops::affine_weight(inject_->weight()), inject_->bias());
  const Map f =
      affine_equilibrium(weight(), injected, options_.activation, options_.margin, options_.direct);
  std::vector<Bound> bound(levels.size());
  for (Bound& one : bound) {
    one.f = f;
    one.extend = [](const Tensor&, int64_t) { return History{}; };
  }
  return bound;
}

}  // namespace deq
