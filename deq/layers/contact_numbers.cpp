#include "deq/layers/contact_numbers.h"

#include <ATen/ATen.h>

#include "deq/base/error.h"

namespace deq {

using at::Tensor;

namespace {

struct Named {
  const char* name;
  const Tensor Contact::*tensor;
  int64_t own;         ///< dimensions without B
  char rows, columns;  ///< n, m or p
};

constexpr Named kInputs[ContactNumbers::kCount] = {
    {"mass", &Contact::mass, 2, 'n', 'n'},
    {"velocity", &Contact::velocity, 1, ' ', 'n'},
    {"impulse", &Contact::impulse, 1, ' ', 'n'},
    {"normal", &Contact::normal, 2, 'm', 'n'},
    {"tangent", &Contact::tangent, 2, 'm', 'n'},
    {"restitution", &Contact::restitution, 1, ' ', 'm'},
    {"friction", &Contact::friction, 1, ' ', 'm'},
    {"joint", &Contact::joint, 2, 'p', 'n'},
    {"bias", &Contact::bias, 1, ' ', 'm'},
    {"joint_bias", &Contact::joint_bias, 1, ' ', 'p'},
};

void check_type(const Named& input, const Tensor& t, const Tensor& like) {
  DEQ_CHECK(t.layout() == at::kStrided, "{} is sparse; expected a dense tensor", input.name);
  DEQ_CHECK(t.device().is_cpu(), "{} is on {}; expected the CPU: contact has no kernel for GPUs",
            input.name, t.device().str());
  DEQ_CHECK(t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble,
            "{} is of type {}; expected float or double", input.name, toString(t.scalar_type()));
  DEQ_CHECK(t.scalar_type() == like.scalar_type(), "{} is of type {}; expected {}, velocity's",
            input.name, toString(t.scalar_type()), toString(like.scalar_type()));
  DEQ_CHECK(t.dim() == input.own || t.dim() == input.own + 1,
            "{} = [{}]; expected {} dimension{}, or {} with a batch", input.name,
            fmt::join(t.sizes(), ", "), input.own, input.own == 1 ? "" : "s", input.own + 1);
}

void check_sign(const char* name, const Tensor& t) {
  const Tensor below = t.lt(0);
  if (!below.any().item<bool>()) return;
  DEQ_CHECK(false, "{} = {}; expected >= 0", name, t.masked_select(below)[0].item<double>());
}

}  // namespace

ContactNumbers::ContactNumbers(const Contact& contact) {
  DEQ_CHECK(contact.velocity.defined(), "velocity is undefined; expected (n) or (B, n)");
  DEQ_CHECK(contact.mass.defined(), "mass is undefined; expected (n, n) or (B, n, n)");
  for (const Named& input : kInputs) {
    const Tensor& t = contact.*input.tensor;
    if (!t.defined()) continue;
    check_type(input, t, contact.velocity);
    if (t.dim() == input.own) continue;
    DEQ_CHECK(!batched || t.size(0) == batch, "{} = [{}]; expected a batch of {}, as before it",
              input.name, fmt::join(t.sizes(), ", "), batch);
    batch = t.size(0);
    batched = true;
  }
  shape.n = contact.velocity.size(-1);
  DEQ_CHECK(shape.n > 0, "velocity = [{}]; expected at least one",
            fmt::join(contact.velocity.sizes(), ", "));
  shape.m = contact.normal.defined() ? contact.normal.size(-2) : 0;
  shape.p = contact.joint.defined() ? contact.joint.size(-2) : 0;
  const auto size_of = [&](char letter) {
    return letter == 'n' ? shape.n : letter == 'm' ? shape.m : shape.p;
  };
  for (size_t i = 0; i < kCount; ++i) {
    const Named& input = kInputs[i];
    const Tensor& t = contact.*input.tensor;
    std::vector<int64_t> sizes;
    if (input.own == 2) sizes.push_back(size_of(input.rows));
    sizes.push_back(size_of(input.columns));
    given[i] = t.defined() ? t : at::zeros(sizes, contact.velocity.options().requires_grad(false));
    const auto own = given[i].sizes().slice(size_t(given[i].dim() - input.own));
    DEQ_CHECK(own == at::IntArrayRef(sizes), "{} = [{}]; expected [{}{}]", input.name,
              fmt::join(given[i].sizes(), ", "), given[i].dim() > input.own ? "B, " : "",
              fmt::join(sizes, ", "));
    numbers[i] = given[i].detach().to(at::kDouble).contiguous();
  }
  check_sign("restitution", numbers[5]);
  check_sign("friction", numbers[6]);
}

bool ContactNumbers::shared(size_t which) const { return given[which].dim() == kInputs[which].own; }

ContactData ContactNumbers::data(int64_t b) const {
  const auto of = [&](size_t i) {
    const double* const all = numbers[i].data_ptr<double>();
    return shared(i) ? all : all + b * numbers[i].stride(0);
  };
  return {of(0), of(1), of(2), of(3), of(4), of(5), of(6), of(7), of(8), of(9)};
}

}  // namespace deq
