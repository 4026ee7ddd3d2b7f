#include "deq/layers/contact.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>

#include "deq/base/error.h"
#include "deq/layers/contact_islands.h"
#include "deq/layers/contact_numbers.h"
#include "deq/ops/tasks.h"

namespace deq {
namespace {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr int64_t kTogether = 16;  // samples that a thread takes at a time

/// The answers of a batch, in double, and what backward needs of them.
struct SolvedContacts {
  ContactNumbers numbers;
  ResolveOptions options;
  bool keep;
  Tensor velocity, normal, friction, joint, touch, weak, dependent, factorisations, certificate;
  Report report;
  std::vector<SolvedIslands> worlds;  // where gradients are wanted
  std::shared_ptr<LatestReport> adjoint = std::make_shared<LatestReport>();

  SolvedContacts(const Contact& contact, const ResolveOptions& how, bool differentiable);

  ContactAnswer answer(int64_t b) const {
    const auto [n, m, p] = numbers.shape;
    ContactAnswer own;
    own.velocity = velocity.data_ptr<double>() + b * n;
    own.normal = normal.data_ptr<double>() + b * m;
    own.friction = friction.data_ptr<double>() + b * m;
    own.joint = joint.data_ptr<double>() + b * p;
    own.touch = touch.data_ptr<uint8_t>() + b * m;
    own.certificate = certificate.data_ptr<double>() + b * (p + m);
    return own;
  }
  template <class F>
  void each(const F& f) const {
    const auto [n, m, p] = numbers.shape;
    const int64_t B = numbers.batch, rows = n + p + 2 * m;
    ops::run_tasks<double>((B + kTogether - 1) / kTogether, 0,
                           [&](int64_t group, double*) {
                             for (int64_t b = group * kTogether;
                                  b < std::min(B, (group + 1) * kTogether); ++b)
                               f(b);
                           },
                           B * rows * rows);
  }
  void solve(int64_t b, const uint8_t* warm);
  variable_list differentiate(const variable_list& g, const std::vector<bool>& wanted) const;
};

SolvedContacts::SolvedContacts(const Contact& contact, const ResolveOptions& how,
                               bool differentiable)
    : numbers(contact), options(how), keep(differentiable) {
  const auto [n, m, p] = numbers.shape;
  const int64_t B = numbers.batch;
  velocity = at::zeros({B, n}, at::kDouble);
  normal = at::zeros({B, m}, at::kDouble);
  friction = at::zeros({B, m}, at::kDouble);
  joint = at::zeros({B, p}, at::kDouble);
  touch = at::zeros({B, m}, at::kByte);
  weak = at::zeros({B}, at::kLong);
  dependent = at::zeros({B}, at::kLong);
  factorisations = at::zeros({B}, at::kLong);
  certificate = at::zeros({B, p + m}, at::kDouble);
  report.reason = at::zeros({B}, at::kByte);
  report.residual = at::zeros({B}, at::kDouble);
  report.steps = at::zeros({B}, at::kLong);
  report.max_steps = options.stop.max_steps;
  report.rel_tol = options.stop.rel_tol;
  worlds.resize(size_t(keep ? B : 0));
  Tensor rows;
  if (options.warm) {
    DEQ_CHECK(options.warm->defined() && options.warm->numel() == B * m,
              "warm = [{}]; expected touch [{}, {}]",
              options.warm->defined() ? fmt::format("{}", fmt::join(options.warm->sizes(), ", "))
                                      : "undefined",
              B, m);
    rows = options.warm->to(at::kByte).contiguous();
    options.warm = nullptr;
  }
  const uint8_t* const warm = rows.defined() ? rows.data_ptr<uint8_t>() : nullptr;
  each([&](int64_t b) { solve(b, warm ? warm + b * m : nullptr); });
  report.evaluations = factorisations.sum().item<int64_t>();
}

void SolvedContacts::solve(int64_t b, const uint8_t* warm) {
  const auto [n, m, p] = numbers.shape;
  const ContactData data = numbers.data(b);
  ContactAnswer own = answer(b);
  SolvedIslands passing;
  (keep ? worlds[size_t(b)] : passing).solve(numbers.shape, data, options, warm, own, keep);
  if (own.reason != Reason::Converged && own.reason != Reason::NotUnique) {
    std::fill_n(own.velocity, n, 0.0);
    std::fill_n(own.normal, m, 0.0);
    std::fill_n(own.friction, m, 0.0);
    std::fill_n(own.joint, p, 0.0);
    std::fill_n(own.touch, m, uint8_t(0));
  }
  report.reason.data_ptr<uint8_t>()[b] = uint8_t(own.reason);
  report.residual.data_ptr<double>()[b] = own.residual;
  report.steps.data_ptr<int64_t>()[b] = own.steps;
  weak.data_ptr<int64_t>()[b] = own.weak;
  dependent.data_ptr<int64_t>()[b] = own.dependent;
  factorisations.data_ptr<int64_t>()[b] = own.factorisations;
}

variable_list SolvedContacts::differentiate(const variable_list& g,
                                            const std::vector<bool>& wanted) const {
  const auto [n, m, p] = numbers.shape;
  const int64_t B = numbers.batch;
  const Tensor* const outputs[] = {&velocity, &normal, &friction, &joint};
  Tensor right[4];
  for (size_t i = 0; i < 4; ++i)
    right[i] = g[i].defined()
                   ? g[i].detach().to(at::kDouble).reshape(outputs[i]->sizes()).contiguous()
                   : at::zeros_like(*outputs[i]);
  variable_list into(ContactNumbers::kCount);
  for (size_t i = 0; i < into.size(); ++i) {
    if (!wanted[i]) continue;
    const Tensor& like = numbers.given[i];
    std::vector<int64_t> sizes(like.sizes().begin(), like.sizes().end());
    if (numbers.shared(i)) sizes.insert(sizes.begin(), B);
    into[i] = at::zeros(sizes, at::kDouble);
  }
  Report found;
  found.reason = at::full({B}, int64_t(Reason::Converged), at::kByte);
  found.residual = at::zeros({B}, at::kDouble);
  found.steps = at::zeros({B}, at::kLong);
  found.rel_tol = 1e-9;
  each([&](int64_t b) {
    if (!worlds[size_t(b)].known()) return;
    const auto at = [&](size_t i) {
      return into[i].defined() ? into[i].data_ptr<double>() + b * into[i].stride(0) : nullptr;
    };
    const double residual = worlds[size_t(b)].differentiate(
        numbers.shape, numbers.data(b), answer(b),
        {right[0].data_ptr<double>() + b * n, right[1].data_ptr<double>() + b * m,
         right[2].data_ptr<double>() + b * m, right[3].data_ptr<double>() + b * p},
        {at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9)});
    found.residual.data_ptr<double>()[b] = residual;
    if (!(residual <= found.rel_tol))
      found.reason.data_ptr<uint8_t>()[b] =
          uint8_t(std::isfinite(residual) ? Reason::MaxSteps : Reason::NonFinite);
  });
  adjoint->set(found);
  for (size_t i = 0; i < into.size(); ++i) {
    if (!into[i].defined()) continue;
    if (numbers.shared(i)) into[i] = into[i].sum(0);
    into[i] = into[i].to(numbers.given[i].scalar_type());
  }
  return into;
}

using Solved = std::shared_ptr<const SolvedContacts>;

variable_list outputs_of(const SolvedContacts& solved) {
  const at::ScalarType type = solved.numbers.given[1].scalar_type();
  variable_list found{solved.velocity, solved.normal, solved.friction, solved.joint};
  for (Tensor& t : found) {
    // A copy: what is handed out may be written to.
    t = t.to(type, /*non_blocking=*/false, /*copy=*/true);
    if (!solved.numbers.batched) t = t.squeeze(0);
  }
  return found;
}

struct Holder : torch::CustomClassHolder {
  explicit Holder(Solved s) : solved(std::move(s)) {}
  Solved solved;
};

struct ContactNode : torch::autograd::Function<ContactNode> {
  static variable_list forward(AutogradContext* context, const Solved& solved, const Tensor& mass,
                               const Tensor& velocity, const Tensor& impulse, const Tensor& normal,
                               const Tensor& tangent, const Tensor& restitution,
                               const Tensor& friction, const Tensor& joint, const Tensor& bias,
                               const Tensor& joint_bias) {
    context->saved_data["solved"] = c10::IValue::make_capsule(c10::make_intrusive<Holder>(solved));
    std::vector<bool> wanted;
    for (const Tensor* t : {&mass, &velocity, &impulse, &normal, &tangent, &restitution, &friction,
                            &joint, &bias, &joint_bias})
      wanted.push_back(t->requires_grad());
    c10::List<bool> list;
    for (const bool each : wanted) list.push_back(each);
    context->saved_data["wanted"] = list;
    // For their versions: what is written to between forward and backward is an error.
    context->save_for_backward(
        {mass, velocity, impulse, normal, tangent, restitution, friction, joint, bias, joint_bias});
    return outputs_of(*solved);
  }

  static variable_list backward(AutogradContext* context, variable_list g) {
    DEQ_CHECK(!c10::GradMode::is_enabled(),
              "resolve: differentiated twice (create_graph); expected once");
    context->get_saved_variables();
    const auto holder = context->saved_data["solved"].toCapsule();
    const Solved solved = static_cast<const Holder*>(holder.get())->solved;
    const c10::List<bool> list = context->saved_data["wanted"].toBoolList();
    std::vector<bool> wanted;
    for (size_t i = 0; i < list.size(); ++i) wanted.push_back(list.get(i));
    variable_list gradients = solved->differentiate(g, wanted);
    gradients.insert(gradients.begin(), Tensor());
    return gradients;
  }
};

}  // namespace

Impact resolve(const Contact& contact, const ResolveOptions& options) {
  validate(options.stop, "ResolveOptions.stop");
  DEQ_CHECK(options.degenerate.kind != Degenerate::Kind::Smoothed,
            "ResolveOptions.degenerate = Smoothed; expected Inactive, Active or LeastNorm");
  bool differentiable = false;
  for (const Tensor* t : {&contact.mass, &contact.velocity, &contact.impulse, &contact.normal,
                          &contact.tangent, &contact.restitution, &contact.friction, &contact.joint,
                          &contact.bias, &contact.joint_bias})
    differentiable |= t->defined() && t->requires_grad();
  differentiable &= c10::GradMode::is_enabled();
  const auto solved = std::make_shared<const SolvedContacts>(contact, options, differentiable);
  Impact found;
  found.report = solved->report;
  found.touch = solved->numbers.batched ? solved->touch.clone() : solved->touch.squeeze(0).clone();
  found.weak = solved->weak;
  found.dependent = solved->dependent;
  found.factorisations = solved->factorisations;
  found.certificate = solved->certificate;
  const ContactNumbers::Tensors& given = solved->numbers.given;
  variable_list outputs;
  if (differentiable) {
    outputs = ContactNode::apply(Solved(solved), given[0], given[1], given[2], given[3], given[4],
                                 given[5], given[6], given[7], given[8], given[9]);
    found.latest_adjoint = solved->adjoint;
  } else {
    outputs = outputs_of(*solved);
  }
  found.velocity = outputs[0], found.normal_impulse = outputs[1];
  found.friction_impulse = outputs[2], found.joint_impulse = outputs[3];
  return found;
}

}  // namespace deq
