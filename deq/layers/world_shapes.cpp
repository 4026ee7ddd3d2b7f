#include "deq/layers/world_shapes.h"

#include <ATen/ATen.h>

#include "deq/base/error.h"

namespace deq {

using at::Tensor;

namespace {

/// l (..., 2) turned by the angle (...).
Tensor turned(const Tensor& angle, const Tensor& l) {
  const Tensor c = at::cos(angle), s = at::sin(angle), x = l.select(-1, 0), y = l.select(-1, 1);
  return at::stack({c * x - s * y, s * x + c * y}, -1);
}
Tensor moment(const Tensor& a, const Tensor& b) {
  return a.select(-1, 0) * b.select(-1, 1) - a.select(-1, 1) * b.select(-1, 0);
}
/// Rows of `table` (B, R, k) by index (B, K).
Tensor rows_of(const Tensor& table, const Tensor& index) {
  return table.gather(1, index.unsqueeze(-1).expand({-1, -1, table.size(2)}));
}
/// along (..., 2) and the torque that it has about a body's centre, at an arm.
Tensor row(const Tensor& along, const Tensor& arm) {
  return at::cat({along, moment(arm, along).unsqueeze(-1)}, -1);
}

}  // namespace

Tensor by_world(const Tensor& t, at::IntArrayRef own, int64_t batch, const char* name) {
  std::vector<int64_t> sizes(own.begin(), own.end());
  const bool alone = t.sizes() == at::IntArrayRef(sizes);
  sizes.insert(sizes.begin(), batch);
  DEQ_CHECK(alone || t.sizes() == at::IntArrayRef(sizes), "{} = [{}]; expected [{}] or [{}]", name,
            fmt::join(t.sizes(), ", "), fmt::join(own, ", "), fmt::join(sizes, ", "));
  return alone ? t.unsqueeze(0).expand(sizes) : t;
}

WorldShapes::WorldShapes(const std::vector<Body>& bodies, const std::vector<HalfPlane>& planes,
                         const std::vector<Joint>& joints, int64_t batch,
                         const at::TensorOptions& options)
    : bodies_(int64_t(bodies.size())), batch_(batch), options_(options) {
  const Tensor none = at::zeros({batch}, options);
  const auto scalar = [&](const Tensor& t, const char* name) {
    return t.defined() ? by_world(t, {}, batch, name) : none;
  };
  std::vector<Tensor> friction, restitution;
  for (size_t i = 0; i < bodies.size(); ++i) {
    add_body(bodies[i], int32_t(i));
    friction.push_back(scalar(bodies[i].friction, "Body.friction"));
    restitution.push_back(scalar(bodies[i].restitution, "Body.restitution"));
  }
  for (const HalfPlane& plane : planes) {
    DEQ_CHECK(plane.normal.defined(), "HalfPlane.normal is undefined; expected (2)");
    const Tensor normal = by_world(plane.normal, {2}, batch, "HalfPlane.normal");
    side_list_.push_back(at::cat(
        {normal / normal.norm(2, {1}, true), scalar(plane.offset, "HalfPlane.offset").unsqueeze(1)},
        1));
    side_body_.push_back(int32_t(bodies_));
    side_owner_.push_back(int32_t(friction.size()));
    friction.push_back(scalar(plane.friction, "HalfPlane.friction"));
    restitution.push_back(scalar(plane.restitution, "HalfPlane.restitution"));
  }
  if (side_list_.empty()) {
    side_list_.push_back(at::zeros({batch, 3}, options));
    side_body_.push_back(int32_t(bodies_));
    side_owner_.push_back(0);
  }
  corners_ = at::stack(corner_list_, 1);
  sides_ = at::stack(side_list_, 1);
  friction_ = at::stack(friction, 1);
  restitution_ = at::stack(restitution, 1);
  const auto position = [&](int64_t body) {
    return by_world(bodies[size_t(body)].position, {3}, batch, "Body.position");
  };
  for (const Joint& joint : joints) {
    DEQ_CHECK(joint.first >= 0 && joint.first < bodies_, "Joint.first = {}; expected 0 to {}",
              joint.first, bodies_ - 1);
    DEQ_CHECK(joint.second >= -1 && joint.second < bodies_ && joint.second != joint.first,
              "Joint.second = {}; expected -1 to {}, and not the first", joint.second, bodies_ - 1);
    DEQ_CHECK(joint.anchor.defined(), "Joint.anchor is undefined; expected (2)");
    const Tensor anchor = by_world(joint.anchor, {2}, batch, "Joint.anchor");
    const auto inside = [&](int64_t body) {
      const Tensor at = position(body);
      return turned(-at.select(1, 2), anchor - at.narrow(1, 0, 2));
    };
    joints_.push_back({joint.first, joint.second < 0 ? bodies_ : joint.second, inside(joint.first),
                       joint.second < 0 ? anchor : inside(joint.second)});
  }
  add_candidates(joints);
}

void WorldShapes::add_body(const Body& body, int32_t number) {
  const Tensor zero = at::zeros({batch_}, options_), one = at::ones({batch_}, options_);
  ranges_.push_back({int32_t(corner_list_.size()), int32_t(side_list_.size()),
                     std::holds_alternative<Box>(body.shape)});
  const auto positive = [&](const Tensor& t, const char* name) {
    DEQ_CHECK(t.defined(), "{} is undefined; expected ()", name);
    const Tensor own = by_world(t, {}, batch_, name);
    DEQ_CHECK(own.gt(0).all().item<bool>(), "{} = {}; expected > 0", name,
              own.min().item<double>());
    return own;
  };
  if (const Disc* disc = std::get_if<Disc>(&body.shape)) {
    corner_list_.push_back(at::stack({zero, zero, positive(disc->radius, "Disc.radius")}, 1));
    corner_body_.push_back(number);
    return;
  }
  const Box& box = std::get<Box>(body.shape);
  const Tensor w = positive(box.width, "Box.width") / 2, h = positive(box.height, "Box.height") / 2;
  for (const int y : {-1, 1}) {
    for (const int x : {-1, 1}) {
      corner_list_.push_back(at::stack({x * w, y * h, zero}, 1));
      corner_body_.push_back(number);
    }
  }
  for (const int axis : {0, 1}) {
    for (const int way : {-1, 1}) {
      side_list_.push_back(axis == 0 ? at::stack({way * one, zero, w}, 1)
                                     : at::stack({zero, way * one, h}, 1));
      side_body_.push_back(number);
      side_owner_.push_back(number);
    }
  }
}

void WorldShapes::add_candidates(const std::vector<Joint>& joints) {
  const auto joined = [&](int32_t a, int32_t b) {
    for (const Joint& joint : joints)
      if ((joint.first == a && joint.second == b) || (joint.first == b && joint.second == a))
        return true;
    return false;
  };
  for (int32_t c = 0; c < int32_t(corner_body_.size()); ++c) {
    const int32_t own = corner_body_[size_t(c)];
    for (int32_t s = 0; s < int32_t(side_body_.size()); ++s)
      if (side_body_[size_t(s)] == bodies_ && side_owner_[size_t(s)] >= bodies_)
        candidates_.push_back({c, -1, s});
    for (int32_t b = 0; b < int32_t(bodies_); ++b) {
      // Two discs are one pair; a disc meets a box as its corner, a box a disc by the disc's.
      if (b == own || joined(own, b)) continue;
      if (!ranges_[size_t(b)].box && (ranges_[size_t(own)].box || b < own)) continue;
      candidates_.push_back({c, b, -1});
    }
  }
}

Encounters WorldShapes::measure(const Tensor& position,
                                const std::vector<Encounter>& meetings) const {
  const int64_t B = batch_, K = B > 0 ? int64_t(meetings.size()) / B : 0, n = bodies_;
  const auto whole = at::TensorOptions(at::kLong);
  Tensor corner = at::zeros({B, K}, whole), side = at::zeros({B, K}, whole),
         other = at::zeros({B, K}, whole), first = at::full({B, K}, n, whole),
         second = at::full({B, K}, n, whole), owner = at::zeros({B, K}, whole);
  // What is no meeting counts as one with a side, whose distance has a gradient.
  Tensor flat = at::ones({B, K}, at::kBool), any = at::zeros({B, K}, at::kBool);
  for (size_t i = 0; i < meetings.size(); ++i) {
    const Encounter& own = meetings[i];
    if (own.corner < 0) continue;
    any.data_ptr<bool>()[i] = true;
    flat.data_ptr<bool>()[i] = own.side >= 0;
    corner.data_ptr<int64_t>()[i] = own.corner;
    side.data_ptr<int64_t>()[i] = std::max(0, own.side);
    other.data_ptr<int64_t>()[i] = std::max(0, own.other);
    first.data_ptr<int64_t>()[i] = corner_body_[size_t(own.corner)];
    const int32_t met =
        own.side >= 0 ? side_body_[size_t(own.side)] : corner_body_[size_t(own.other)];
    second.data_ptr<int64_t>()[i] = met;
    owner.data_ptr<int64_t>()[i] = own.side >= 0 ? side_owner_[size_t(own.side)] : met;
  }
  const Tensor ground = at::constant_pad_nd(position, {0, 0, 0, 1});
  const Tensor a = rows_of(ground, first), b = rows_of(ground, second);
  const Tensor c = rows_of(corners_, corner), d = rows_of(corners_, other),
               s = rows_of(sides_, side);
  const Tensor arm = turned(a.select(2, 2), c.narrow(2, 0, 2));
  const Tensor x = a.narrow(2, 0, 2) + arm, centre = b.narrow(2, 0, 2);
  const Tensor flat2 = flat.unsqueeze(2);
  const Tensor apart = at::where(flat2, at::ones({}, position.options().requires_grad(false)),
                                 x - centre - turned(b.select(2, 2), d.narrow(2, 0, 2)));
  const Tensor distance = apart.square().sum(2).sqrt();
  const Tensor along = turned(b.select(2, 2), s.narrow(2, 0, 2));
  const Tensor normal = at::where(flat2, along, apart / distance.unsqueeze(2));
  const Tensor radius = c.select(2, 2);
  const Tensor reach =
      at::where(flat, (along * (x - centre)).sum(2) - s.select(2, 2), distance - d.select(2, 2));
  const Tensor at_contact = x - radius.unsqueeze(2) * normal;
  const Tensor across = at::stack({normal.select(2, 1), -normal.select(2, 0)}, 2);
  const Tensor here = any.to(position.scalar_type());
  const auto rows = [&](const Tensor& way) {
    const Tensor one = row(way, at_contact - a.narrow(2, 0, 2)) * here.unsqueeze(2),
                 two = -row(way, at_contact - centre) * here.unsqueeze(2);
    const auto place = [&](const Tensor& index) {
      return index.view({B, K, 1, 1}).expand({-1, -1, 1, 3});
    };
    return at::zeros({B, K, n + 1, 3}, position.options().requires_grad(false))
        .scatter_add(2, place(first), one.unsqueeze(2))
        .scatter_add(2, place(second), two.unsqueeze(2))
        .narrow(2, 0, n)
        .reshape({B, K, 3 * n});
  };
  const auto mean = [&](const Tensor& by_owner) {
    const Tensor own = first.clamp_max(n - 1);
    return (by_owner.gather(1, own) + by_owner.gather(1, owner)) / 2;
  };
  return {(reach - radius) * here, rows(normal), rows(across), mean(friction_), mean(restitution_)};
}

void WorldShapes::measure_joints(const Tensor& position, Tensor& apart, Tensor& rows) const {
  const int64_t B = batch_, n = bodies_;
  std::vector<Tensor> gaps, all;
  const Tensor axes = at::eye(2, position.options().requires_grad(false)).expand({B, 2, 2});
  for (const Pin& pin : joints_) {
    const Tensor zero = at::zeros({B, 3}, position.options().requires_grad(false));
    const auto at = [&](int64_t body) { return body < n ? position.select(1, body) : zero; };
    const auto arm = [&](int64_t body, const Tensor& l) {
      return turned(at(body).select(1, 2), l);
    };
    const Tensor one = arm(pin.first, pin.at_first), two = arm(pin.second, pin.at_second);
    gaps.push_back(at(pin.first).narrow(1, 0, 2) + one - at(pin.second).narrow(1, 0, 2) - two);
    std::vector<Tensor> blocks(size_t(n), at::zeros({B, 2, 3}, zero.options()));
    blocks[size_t(pin.first)] = row(axes, one.unsqueeze(1).expand({-1, 2, -1}));
    if (pin.second < n)
      blocks[size_t(pin.second)] = -row(axes, two.unsqueeze(1).expand({-1, 2, -1}));
    all.push_back(at::cat(blocks, 2));
  }
  apart = at::cat(gaps, 1);
  rows = at::cat(all, 1);
}

}  // namespace deq
