#include "deq/layers/maxsat.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>
#include <utility>

#include "deq/base/error.h"
#include "deq/base/threads.h"
#include "deq/layers/clauses.h"
#include "deq/layers/maxsat_samples.h"
#include "deq/ops/affine.h"
#include "deq/ops/shapes.h"

namespace deq {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// Numbers that are a function of the seed, on every machine (splitmix64).
class Stream {
 public:
  Stream(uint64_t seed, uint64_t use) : state_(seed * 0xD1342543DE82EF95u + use) { next(); }
  uint64_t next() {
    uint64_t x = state_ += 0x9E3779B97F4A7C15u;
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
  }
  double uniform() { return (double(next() >> 11) + 0.5) * 0x1p-53; }
  double normal() {
    return std::sqrt(-2 * std::log(uniform())) * std::cos(6.283185307179586 * uniform());
  }

 private:
  uint64_t state_;
};

int64_t default_rank(int64_t N) {
  const int64_t least = int64_t(std::ceil(std::sqrt(2.0 * double(N + 1)))) + 1;
  return (least + 7) / 8 * 8;
}

Tensor random_clauses(const MaxsatOptions& o) {
  DEQ_CHECK(o.clauses >= 0, "MaxsatOptions.clauses = {}; expected >= 0", o.clauses);
  const int64_t rows = 1 + o.variables + o.auxiliary;
  const Tensor S = at::empty({rows, o.clauses}, at::kDouble);
  const double size = std::sqrt(0.5 / double(rows + o.clauses));
  Stream random(o.seed, 1);
  for (int64_t i = 0; i < S.numel(); ++i) S.data_ptr<double>()[i] = size * random.normal();
  return S.to(at::kFloat);
}

void check_sizes(const MaxsatOptions& o) {
  DEQ_CHECK(o.variables >= 1, "MaxsatOptions.variables = {}; expected >= 1", o.variables);
  DEQ_CHECK(o.auxiliary >= 0, "MaxsatOptions.auxiliary = {}; expected >= 0", o.auxiliary);
  DEQ_CHECK(o.rank == 0 || o.rank >= 2, "MaxsatOptions.rank = {}; expected 0 or >= 2", o.rank);
}

void check_clauses(const Tensor& S, int64_t rows) {
  DEQ_CHECK(S.defined() && S.dim() == 2 && S.size(0) == rows, "maxsat: S is {}; expected ({}, m)",
            ops::shape_of(S), rows);
  DEQ_CHECK(S.scalar_type() == at::kFloat || S.scalar_type() == at::kDouble,
            "maxsat: S is {}; expected Float or Double", c10::toString(S.scalar_type()));
  DEQ_CHECK(S.is_cpu(), "maxsat: S is on {}; expected the CPU, where its kernels are",
            S.device().str());
}

/// C = S S^T, with its tape.
Tensor products_of(const Tensor& S) {
  if (S.size(1) == 0) return at::matmul(S, S.t());
  return ops::affine(S.unsqueeze(0), ops::affine_weight(S), {}).squeeze(0);
}

void check_how(const MaxsatSolve& how) {
  validate(how.stop, "MaxsatSolve.stop");
  validate(how.adjoint, "MaxsatSolve.adjoint");
  DEQ_CHECK(how.memory >= 0 && how.memory <= 16, "MaxsatSolve.memory = {}; expected 0 to 16",
            how.memory);
  DEQ_CHECK(how.silence >= 0 && how.silence < 1, "MaxsatSolve.silence = {}; expected [0, 1)",
            how.silence);
  DEQ_CHECK(how.saturated >= 0 && how.saturated < 0.5,
            "MaxsatSolve.saturated = {}; expected [0, 0.5)", how.saturated);
}

/// Known numbers beside NaN, which is no error but a sample without a solution.
void check_range(const Tensor& z, const Tensor& known) {
  const Tensor outside = z.lt(0).logical_or(z.gt(1)).logical_and(known);
  if (!outside.any().item<bool>()) return;
  const Tensor where = outside.nonzero()[0];
  const int64_t b = where[0].item<int64_t>(), i = where[1].item<int64_t>();
  DEQ_CHECK(false, "maxsat: z[{}, {}] = {} is known; expected it in [0, 1]", b, i,
            z[b][i].item<double>());
}

/// Shared by the batch where they have no dimension for it.
Tensor directions_for(const Tensor& u, const Tensor& z, int64_t k) {
  if (!u.defined()) return u;
  const int64_t B = z.size(0), n = z.size(1);
  DEQ_CHECK(u.sizes() == at::IntArrayRef({n, k}) || u.sizes() == at::IntArrayRef({B, n, k}),
            "maxsat: directions are {}; expected [{}, {}] or [{}, {}, {}]", ops::shape_of(u), n, k,
            B, n, k);
  DEQ_CHECK(u.scalar_type() == z.scalar_type(), "maxsat: directions are {}; expected {}, as z",
            c10::toString(u.scalar_type()), c10::toString(z.scalar_type()));
  const Tensor all = u.detach().expand({B, n, k}).contiguous();
  const double off = all.numel() == 0 ? 0
                                      : std::max(all.select(2, 0).abs().max().item<double>(),
                                                 (all.norm(2, 2) - 1).abs().max().item<double>());
  DEQ_CHECK(off <= 1e-5,
            "maxsat: directions are {} off; expected unit vectors with a first number "
            "of 0",
            off);
  return all;
}

Tensor warm_for(const Tensor& warm, const Tensor& z, int64_t N, int64_t k) {
  if (!warm.defined()) return warm;
  const int64_t B = z.size(0);
  DEQ_CHECK(warm.sizes() == at::IntArrayRef({B, N, k}),
            "maxsat: warm vectors are {}; expected [{}, {}, {}]", ops::shape_of(warm), B, N, k);
  return warm.detach().to(z.scalar_type()).contiguous();
}

/// Of an adjoint that is zero, for the rows of `forward`.
Report converged_at_once(const Report& forward, const StopRule& stop) {
  Report report;
  report.reason = at::full_like(forward.reason, int64_t(Reason::Converged));
  report.residual = at::zeros_like(forward.residual);
  report.steps = at::zeros_like(forward.steps);
  report.max_steps = stop.max_steps;
  report.rel_tol = stop.rel_tol;
  report.abs_tol = stop.abs_tol;
  return report;
}

struct Node : torch::autograd::Function<Node> {
  struct Held : torch::CustomClassHolder {
    MaxsatCall call;
    MaxsatFound found;
    std::shared_ptr<LatestReport> latest;
  };

  static Tensor forward(AutogradContext* context, const Tensor& C, const Tensor& z,
                        c10::intrusive_ptr<Held> held) {
    const Tensor found = std::exchange(held->found.z, {});  // a node must not hold what it gave
    context->save_for_backward({C, z, held->call.known, held->found.vectors});
    context->saved_data["held"] = c10::IValue::make_capsule(std::move(held));
    return found;
  }

  static variable_list backward(AutogradContext* context, variable_list gradients) {
    DEQ_CHECK(!c10::GradMode::is_enabled(),
              "maxsat: differentiated twice (create_graph); expected once");
    variable_list none(3);
    if (!gradients[0].defined()) return none;
    const variable_list saved = context->get_saved_variables();  // throws where one was written to
    const auto held =
        c10::static_intrusive_pointer_cast<Held>(context->saved_data["held"].toCapsule());
    if (!gradients[0].any().item<bool>()) {  // a link of a chain that no loss looks at
      held->latest->set(converged_at_once(held->found.report, held->call.how.adjoint));
      return {at::zeros_like(saved[0]), at::zeros_like(saved[1]), Tensor()};
    }
    const FreeThreads threads;
    const MaxsatGradients found =
        maxsat_backward(held->call, held->found, gradients[0].contiguous(),
                        context->needs_input_grad(0), context->needs_input_grad(1));
    held->latest->set(found.report);
    return {found.C, found.z, Tensor()};
  }
};

}  // namespace

Maxsat::Maxsat(const MaxsatOptions& options) : options_(options) {
  check_sizes(options_);
  S_ = register_parameter("S", random_clauses(options_));
  prepare();
}

Maxsat::Maxsat(const Tensor& S, MaxsatOptions options) : options_(options) {
  check_sizes(options_);
  check_clauses(S, 1 + options_.variables + options_.auxiliary);
  options_.clauses = S.size(1);
  S_ = register_parameter("S", S.detach().clone());
  prepare();
}

Maxsat Maxsat::from_clauses(const std::string& dimacs, const std::string& source) {
  const Clauses clauses = read_clauses(dimacs, source);
  DEQ_CHECK(clauses.variables >= 1, "{}: {} variables; expected >= 1", source, clauses.variables);
  return Maxsat(clauses.matrix(), {.variables = clauses.variables});
}

void Maxsat::prepare() {
  const int64_t n = options_.variables, N = n + options_.auxiliary;
  if (options_.rank == 0) options_.rank = default_rank(N);
  const int64_t k = options_.rank;
  starts_ = at::zeros({N, k}, at::kDouble);
  Stream random(options_.seed, 2);
  for (int64_t i = 0; i < N; ++i) {
    double* row = starts_.data_ptr<double>() + i * k;
    double squared = 0;
    for (int64_t c = 1; c < k; ++c) squared += row[c] * row[c];
    while (!(squared > 1e-6)) {
      squared = 0;
      for (int64_t c = 1; c < k; ++c) {
        row[c] = random.normal();
        squared += row[c] * row[c];
      }
    }
    for (int64_t c = 1; c < k; ++c) row[c] /= std::sqrt(squared);
  }
  signs_ = at::empty({n}, at::kDouble);
  Stream sign(options_.seed, 3);
  for (int64_t i = 0; i < n; ++i) signs_.data_ptr<double>()[i] = sign.next() & 1 ? 1 : -1;
}

Assignment Maxsat::operator()(const Tensor& z, const Tensor& known, const MaxsatSolve& how) const {
  return assign(S_, z, known, how);
}

Assignment Maxsat::assign(const Tensor& S, const Tensor& z, const Tensor& known,
                          const MaxsatSolve& how) const {
  const int64_t n = options_.variables, N = n + options_.auxiliary;
  check_clauses(S, 1 + N);
  DEQ_CHECK(z.defined() && z.dim() == 2 && z.size(1) == n && z.is_cpu(),
            "maxsat: z is {}; expected (batch, {}) on the CPU", ops::shape_of(z), n);
  DEQ_CHECK(z.scalar_type() == S.scalar_type(), "maxsat: z is {}; expected {}, as S",
            c10::toString(z.scalar_type()), c10::toString(S.scalar_type()));
  DEQ_CHECK(
      known.defined() && (known.sizes() == z.sizes() || known.sizes() == at::IntArrayRef({n})),
      "maxsat: known is {}; expected {} or [{}]", ops::shape_of(known), ops::shape_of(z), n);
  DEQ_CHECK(known.scalar_type() == at::kBool || known.scalar_type() == at::kByte,
            "maxsat: known is {}; expected Bool or Byte", c10::toString(known.scalar_type()));
  check_how(how);
  const FreeThreads threads;
  const Tensor C = products_of(S);
  auto held = c10::make_intrusive<Node::Held>();
  MaxsatCall& call = held->call;
  call.how = how;
  call.C = C.detach().contiguous();
  call.z = z.detach().contiguous();
  call.known = known.to(at::kCPU, at::kBool).expand_as(z).contiguous();
  check_range(call.z, call.known);
  call.starts = starts_;
  call.signs = signs_;
  call.warm = warm_for(how.warm, z, N, options_.rank);
  call.directions = directions_for(how.directions, call.z, options_.rank);
  held->found = maxsat_forward(call);
  const MaxsatFound& found = held->found;
  Assignment a{found.z, found.vectors, found.objective, found.report};
  if (!c10::GradMode::is_enabled() || !(C.requires_grad() || z.requires_grad())) return a;
  a.latest_adjoint = held->latest = std::make_shared<LatestReport>();
  a.z = Node::apply(C, z, std::move(held));
  return a;
}

}  // namespace deq
