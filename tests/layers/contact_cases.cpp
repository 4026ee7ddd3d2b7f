#include "tests/layers/contact_cases.h"

#include <ATen/ATen.h>

namespace deq::testing {

using at::Tensor;

namespace {

struct Input {
  const char* name;
  Tensor Contact::*tensor;
};
constexpr Input kInputs[] = {
    {"mass", &Contact::mass},         {"velocity", &Contact::velocity},
    {"impulse", &Contact::impulse},   {"normal", &Contact::normal},
    {"tangent", &Contact::tangent},   {"restitution", &Contact::restitution},
    {"friction", &Contact::friction}, {"joint", &Contact::joint},
    {"bias", &Contact::bias},         {"joint_bias", &Contact::joint_bias},
};

Tensor times(const Tensor& M, const Tensor& x) { return M.matmul(x.unsqueeze(-1)).squeeze(-1); }

}  // namespace

Contact random_worlds(int64_t B, int64_t bodies, int64_t contacts, bool joints, uint64_t seed) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  const int64_t n = 3 * bodies;
  const auto uniform = [&](std::vector<int64_t> sizes) {
    return at::rand(sizes, generator, at::kDouble);
  };
  Contact c;
  c.mass = at::diag_embed(0.3 + 2 * uniform({B, n}));
  c.velocity = at::randn({B, n}, generator, at::kDouble);
  c.impulse = 0.1 * at::randn({B, n}, generator, at::kDouble);
  c.normal = at::zeros({B, contacts, n}, at::kDouble);
  c.tangent = at::zeros({B, contacts, n}, at::kDouble);
  for (int64_t i = 0; i < contacts; ++i) {
    const Tensor angle = 6.28 * uniform({B}), x = at::cos(angle), y = at::sin(angle);
    const int64_t first = i % bodies, second = i < bodies ? -1 : (i + 1) % bodies;
    for (const auto& [body, sign] : {std::pair{first, 1.0}, std::pair{second, -1.0}}) {
      if (body < 0 || (body == first && sign < 0)) continue;
      c.normal.select(1, i)
          .narrow(1, 3 * body, 3)
          .copy_(sign * at::stack({uniform({B}) - 0.5, x, y}, 1));
      c.tangent.select(1, i)
          .narrow(1, 3 * body, 3)
          .copy_(sign * at::stack({uniform({B}) - 0.5, y, -x}, 1));
    }
  }
  c.restitution = uniform({B, contacts});
  c.friction = 0.8 * uniform({B, contacts});
  if (!joints) return c;
  c.joint = at::zeros({B, 2, n}, at::kDouble);
  for (int64_t axis = 0; axis < 2; ++axis) {
    const Tensor row = c.joint.select(1, axis);
    row.select(1, 1 + axis).fill_(1);
    row.select(1, 4 + axis).fill_(-1);
    row.select(1, 0).copy_(uniform({B}) - 0.5);
    row.select(1, 3).copy_(uniform({B}) - 0.5);
  }
  return c;
}

LayerCase contact_case(const std::string& name, const Contact& contact, const std::string& shared,
                       const ResolveOptions& options) {
  LayerCase layer;
  layer.name = name;
  for (const auto& [key, member] : kInputs) {
    const Tensor& t = contact.*member;
    if (!t.defined() || t.numel() == 0) continue;
    if (shared.find(key) != std::string::npos) {
      layer.shared[key] = t[0].clone();
    } else {
      layer.batched[key] = t;
    }
  }
  layer.run = [options](const Tensors& batched, const Tensors& own) {
    Contact c;
    for (const auto& [key, member] : kInputs) {
      if (batched.count(key)) c.*member = batched.at(key);
      if (own.count(key)) c.*member = own.at(key);
    }
    const Impact found = resolve(c, options);
    Tensors outputs{{"velocity", found.velocity}};
    if (found.normal_impulse.size(-1) > 0) {
      outputs["normal"] = found.normal_impulse;
      outputs["friction"] = found.friction_impulse;
    }
    if (found.joint_impulse.size(-1) > 0) outputs["joint"] = found.joint_impulse;
    return LayerResult{outputs, found.report};
  };
  return layer;
}

Tensor violations(const Contact& c, const Impact& r) {
  const Tensor v = r.velocity.detach().to(at::kDouble), before = c.velocity.detach();
  const Tensor lam = r.normal_impulse.detach().to(at::kDouble),
               f = r.friction_impulse.detach().to(at::kDouble),
               eta = r.joint_impulse.detach().to(at::kDouble);
  const auto most = [](const Tensor& x) {
    return x.size(-1) > 0 ? x.abs().amax(-1) : at::zeros({x.size(0)}, at::kDouble);
  };
  Tensor momentum =
      times(c.mass, v - before) - (c.impulse.defined() ? c.impulse : at::zeros_like(v));
  Tensor worst = at::zeros({v.size(0)}, at::kDouble);
  if (c.normal.defined()) {
    momentum = momentum - times(c.normal.transpose(-1, -2), lam);
    Tensor gap = times(c.normal, v);
    if (c.restitution.defined()) gap = gap + c.restitution * times(c.normal, before);
    if (c.bias.defined()) gap = gap + c.bias;
    const Tensor held = c.normal.ne(0).any(-1);
    worst = at::max(worst, most(at::min(lam, gap) * held));
  }
  if (c.tangent.defined()) {
    momentum = momentum - times(c.tangent.transpose(-1, -2), f);
    const Tensor s = times(c.tangent, v), most_f = c.friction * lam;
    worst = at::max(worst, most((f.abs() - most_f).clamp_min(0)));
    // Slides: at the bound, against the motion.
    worst = at::max(worst, most(at::min(s.abs(), (f + most_f * s.sign()).abs())));
  }
  if (c.joint.defined()) {
    momentum = momentum - times(c.joint.transpose(-1, -2), eta);
    worst = at::max(worst, most(times(c.joint, v) +
                                (c.joint_bias.defined() ? c.joint_bias : at::zeros_like(eta))));
  }
  return at::max(worst, most(momentum));
}

}  // namespace deq::testing
