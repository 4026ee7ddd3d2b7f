#include "deq/layers/quadratic_program.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include "deq/base/epsilon.h"
#include "deq/base/error.h"
#include "deq/layers/solved_programs.h"

namespace deq {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// g as double, contiguous, of the batch; zeros where it is undefined.
Tensor right_hand_side(const Tensor& g, const Tensor& like) {
  if (!g.defined()) return at::zeros_like(like);
  return g.detach().to(at::kDouble).reshape(like.sizes()).contiguous().clone();
}

/// (B, k) as outputs are: of the type, and without B where no input has one.
Tensor as_output(const Tensor& x, at::ScalarType type, bool batched) {
  const Tensor typed = x.to(type);
  return batched ? typed : typed.squeeze(0);
}

/// Which numbers of a matrix there are: all, or those in the rows and columns of a sparse one.
struct Places {
  Tensor rows, columns;  // (N), or undefined

  Places() = default;
  explicit Places(const RowPattern& M) {
    std::vector<int64_t> of_each;
    for (int64_t i = 0; i < M.rows(); ++i) of_each.resize(size_t(M.begin[size_t(i) + 1]), i);
    rows = at::tensor(of_each, at::kLong);
    columns = at::tensor(M.column, at::kLong);
  }
};

/// x y' of each sample.
Tensor by_sample(const Tensor& x, const Tensor& y, const Places& places) {
  if (places.rows.defined())
    return x.index_select(-1, places.rows) * y.index_select(-1, places.columns);
  return x.unsqueeze(-1) * y.unsqueeze(-2);
}

/// The sum over the batch where `like` has none.
Tensor as_input(const Tensor& gradient, const Tensor& like) {
  return gradient.dim() > like.dim() ? gradient.sum(0) : gradient;
}

/// out[b][i][j] = factor (x[b][i] y[b][j] + u[b][i] v[b][j]), in one pass.
template <class T>
void fill_products(T factor, const Tensor& x, const Tensor& y, const Tensor& u, const Tensor& v,
                   const Tensor& out) {
  const int64_t I = out.size(1), J = out.size(2);
  const T *const px = x.data_ptr<T>(), *const py = y.data_ptr<T>(), *const pu = u.data_ptr<T>(),
                 *const pv = v.data_ptr<T>();
  T* const to = out.data_ptr<T>();
  at::parallel_for(0, out.size(0), 1 + (1 << 15) / (1 + I * J), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      for (int64_t i = 0; i < I; ++i) {
        const T left = factor * px[b * I + i], other = factor * pu[b * I + i];
        const T *const right = py + b * J, *const beside = pv + b * J;
        T* const row = to + (b * I + i) * J;
        for (int64_t j = 0; j < J; ++j) row[j] = left * right[j] + other * beside[j];
      }
    }
  });
}

/// factor (x y' + u v'), of each sample or, where `like` is shared, of all together.
Tensor products(double factor, const Tensor& x, const Tensor& y, const Tensor& u, const Tensor& v,
                const Tensor& like, const Places& places) {
  if (c10::GradMode::is_enabled() || places.rows.defined())
    return as_input(factor * (by_sample(x, y, places) + by_sample(u, v, places)), like);
  if (like.dim() == 2) {
    const auto rows = [](const Tensor& t) { return t.dim() == 1 ? t.unsqueeze(0) : t; };
    return factor * (rows(x).t().mm(rows(y)) + rows(u).t().mm(rows(v)));
  }
  const Tensor out = at::empty(like.sizes(), x.options());
  const auto fill = [&](auto one) {
    using T = decltype(one);
    fill_products<T>(T(factor), x.contiguous(), y.contiguous(), u.contiguous(), v.contiguous(),
                     out);
  };
  out.scalar_type() == at::kFloat ? fill(float()) : fill(double());
  return out;
}

/// Programs that are solved, and where their matrices have numbers.
struct SolvedWithPlaces : SolvedPrograms {
  Places Q, A, G;

  SolvedWithPlaces(const ProgramNumbers& numbers, const MinimiseOptions& options, double precision,
                   bool differentiable)
      : SolvedPrograms(numbers, options, precision, differentiable) {
    if (!pattern()) return;
    Q = Places(pattern()->Q);
    A = Places(pattern()->A);
    G = Places(pattern()->G);
  }
};
using Solved = std::shared_ptr<const SolvedWithPlaces>;

/// w of K w = g, g by the outputs, as a function of the data and of g: any number of times
/// differentiable, since v of K v = dw gives  dg = v,  dQ = -(v_z w_z' + w_z v_z') / 2,
/// dA = -(w_nu v_z' + v_nu w_z'), and dG likewise.
struct SolveNode : torch::autograd::Function<SolveNode> {
  static variable_list forward(AutogradContext* context, const Tensor& Q, const Tensor& A,
                               const Tensor& G, const Tensor& gz, const Tensor& gnu,
                               const Tensor& glam, const Solved& solved) {
    Tensor z = right_hand_side(gz, solved->z), nu = right_hand_side(gnu, solved->nu),
           lam = right_hand_side(glam, solved->lam);
    solved->solve(z, nu, lam);
    const bool batched = gz.dim() == 2;
    const variable_list w{as_output(z, gz.scalar_type(), batched),
                          as_output(nu, gz.scalar_type(), batched),
                          as_output(lam, gz.scalar_type(), batched)};
    context->saved_data["solved"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(solved));
    context->save_for_backward({Q, A, G, w[0], w[1], w[2]});
    return w;
  }

  static variable_list backward(AutogradContext* context, variable_list dw) {
    const variable_list saved = context->get_saved_variables();
    const auto holder = context->saved_data["solved"].toCapsule();
    const Solved solved = static_cast<const Holder*>(holder.get())->solved;
    const Tensor &Q = saved[0], &A = saved[1], &G = saved[2];
    for (size_t i = 0; i < 3; ++i)
      if (!dw[i].defined()) dw[i] = at::zeros_like(saved[3 + i]);
    const variable_list v = apply(Q, A, G, dw[0], dw[1], dw[2], solved);
    const Tensor &wz = saved[3], &wnu = saved[4], &wlam = saved[5];
    const auto rows = [&](const Tensor& w, const Tensor& own, const Tensor& like,
                          const Places& places) {
      return as_input(-(by_sample(w, v[0], places) + by_sample(own, wz, places)), like);
    };
    return {as_input(-(by_sample(v[0], wz, solved->Q) + by_sample(wz, v[0], solved->Q)) / 2, Q),
            rows(wnu, v[1], A, solved->A),
            rows(wlam, v[2], G, solved->G),
            v[0],
            v[1],
            v[2],
            Tensor()};
  }

  struct Holder : torch::CustomClassHolder {
    explicit Holder(Solved s) : solved(std::move(s)) {}
    Solved solved;
  };
};

/// The solution. Its values stand in `solved`.
struct ProgramNode : torch::autograd::Function<ProgramNode> {
  static variable_list forward(AutogradContext* context, const Tensor& Q, const Tensor& q,
                               const Tensor& A, const Tensor& b, const Tensor& G, const Tensor& h,
                               const Solved& solved, bool batched) {
    const at::ScalarType type = q.scalar_type();
    const variable_list found{as_output(solved->z, type, batched),
                              as_output(solved->nu, type, batched),
                              as_output(solved->lam, type, batched)};
    context->saved_data["solved"] =
        c10::IValue::make_capsule(c10::make_intrusive<SolveNode::Holder>(solved));
    context->save_for_backward({Q, q, A, b, G, h, found[0], found[1], found[2]});
    return found;
  }

  static variable_list backward(AutogradContext* context, variable_list g) {
    const variable_list saved = context->get_saved_variables();
    const auto holder = context->saved_data["solved"].toCapsule();
    const Solved solved = static_cast<const SolveNode::Holder*>(holder.get())->solved;
    const Tensor &Q = saved[0], &q = saved[1], &A = saved[2], &b = saved[3], &G = saved[4],
                 &h = saved[5];
    Tensor z = saved[6], nu = saved[7], lam = saved[8];
    if (solved->degenerate().kind == Degenerate::Kind::Smoothed) {
      DEQ_CHECK(
          !c10::GradMode::is_enabled(),
          "Degenerate::Smoothed: differentiated twice (create_graph); expected another option "
          "for that");
      const auto typed = [&](const Tensor& x) {
        return as_output(x, z.scalar_type(), z.dim() == 2);
      };
      z = typed(solved->at_z), nu = typed(solved->at_nu), lam = typed(solved->at_lam);
    }
    for (size_t i = 0; i < 3; ++i)
      if (!g[i].defined()) g[i] = at::zeros_like(saved[6 + i]);
    const variable_list w = SolveNode::apply(Q, A, G, g[0], g[1], g[2], solved);
    const auto where = [](const Tensor& input, const auto& gradient) {
      return input.requires_grad() ? gradient() : Tensor();
    };
    return {where(Q, [&] { return products(-0.5, w[0], z, z, w[0], Q, solved->Q); }),
            where(q, [&] { return as_input(-w[0], q); }),
            where(A, [&] { return products(-1, nu, w[0], w[1], z, A, solved->A); }),
            where(b, [&] { return as_input(w[1], b); }),
            where(G, [&] { return products(-1, lam, w[0], w[2], z, G, solved->G); }),
            where(h, [&] { return as_input(w[2], h); }),
            Tensor(),
            Tensor()};
  }
};

void check(const MinimiseOptions& options) {
  validate(options.stop, "MinimiseOptions.stop");
  DEQ_CHECK(options.degenerate.kind != Degenerate::Kind::Smoothed || options.degenerate.kappa > 0,
            "Degenerate::Smoothed.kappa = {}; expected > 0", options.degenerate.kappa);
}

/// `program`: the tensors whose numbers these are, of sparse matrices the values.
Optimum optimum(const QuadraticProgram& program, const ProgramNumbers& numbers,
                const MinimiseOptions& options) {
  bool differentiable = false;
  for (const Tensor* t : {&program.Q, &program.q, &program.A, &program.b, &program.G, &program.h})
    differentiable |= t->defined() && t->requires_grad();
  differentiable &= c10::GradMode::is_enabled();
  const at::ScalarType type = program.q.scalar_type();
  const double precision = epsilon_of(type);
  const Solved solved =
      std::make_shared<SolvedWithPlaces>(numbers, options, precision, differentiable);
  Optimum found;
  found.report = solved->report;
  found.active = as_output(solved->active, at::kBool, numbers.batched);
  found.weak = solved->weak;
  found.factorisations = solved->factorisations;
  found.certificate = solved->certificate;
  if (!differentiable) {
    found.z = as_output(solved->z, type, numbers.batched);
    found.nu = as_output(solved->nu, type, numbers.batched);
    found.lam = as_output(solved->lam, type, numbers.batched);
    return found;
  }
  const auto given = [&](const Tensor& t, const Tensor& none) {
    return t.defined() ? t : none.to(type);
  };
  const variable_list outputs =
      ProgramNode::apply(given(program.Q, numbers.Q), program.q, given(program.A, numbers.A),
                         given(program.b, numbers.b), given(program.G, numbers.G),
                         given(program.h, numbers.h), solved, numbers.batched);
  found.z = outputs[0], found.nu = outputs[1], found.lam = outputs[2];
  found.latest_adjoint = solved->adjoint;
  return found;
}

}  // namespace

Optimum minimise(const QuadraticProgram& program, const MinimiseOptions& options) {
  check(options);
  return optimum(program, ProgramNumbers(program), options);
}

Optimum minimise(const SparseProgram& program, const MinimiseOptions& options) {
  check(options);
  return optimum(
      {program.Q.values, program.q, program.A.values, program.b, program.G.values, program.h},
      ProgramNumbers(program), options);
}

}  // namespace deq
