#include "deq/layers/world.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "deq/base/error.h"
#include "deq/layers/world_search.h"
#include "deq/layers/world_shapes.h"

namespace deq {

using at::Tensor;

namespace {

constexpr double kTouchingFloats = 1e-5;

Tensor first_defined(const Body& body) {
  DEQ_CHECK(body.position.defined(), "Body.position is undefined; expected (3)");
  return body.position;
}

int64_t batch_of(const std::vector<Body>& bodies, const std::vector<HalfPlane>& planes,
                 const std::vector<Joint>& joints) {
  int64_t batch = 1;
  const auto see = [&](const Tensor& t, int64_t own) {
    if (t.defined() && t.dim() == own + 1) batch = std::max(batch, t.size(0));
  };
  for (const Body& body : bodies) {
    see(body.position, 1), see(body.velocity, 1), see(body.mass, 0), see(body.inertia, 0);
    see(body.friction, 0), see(body.restitution, 0);
    if (const Disc* disc = std::get_if<Disc>(&body.shape)) see(disc->radius, 0);
    if (const Box* box = std::get_if<Box>(&body.shape)) see(box->width, 0), see(box->height, 0);
  }
  for (const HalfPlane& plane : planes) {
    see(plane.normal, 1), see(plane.offset, 0), see(plane.friction, 0);
    see(plane.restitution, 0);
  }
  for (const Joint& joint : joints) see(joint.anchor, 1);
  return batch;
}

/// Of a shape of even density.
Tensor inertia_of(const Body& body) {
  if (body.inertia.defined()) return body.inertia;
  if (const Disc* disc = std::get_if<Disc>(&body.shape))
    return body.mass * disc->radius.square() / 2;
  const Box& box = std::get<Box>(body.shape);
  return body.mass * (box.width.square() + box.height.square()) / 12;
}

}  // namespace

/// What a step knows of its worlds.
struct World::Progress {
  WorldReport step;
  std::vector<uint8_t> going;  // with time left
  std::vector<double> left;
  Tensor rest;  // the same (B, 1), with its tape

  Progress(int64_t B, double dt, const at::TensorOptions& options, const ResolveOptions& how)
      : going(size_t(B), 1), left(size_t(B), dt), rest(at::full({B, 1}, dt, options)) {
    Report& report = step.report;
    report.reason = at::full({B}, int64_t(Reason::Converged), at::kByte);
    report.residual = at::zeros({B}, at::kDouble);
    report.steps = at::zeros({B}, at::kLong);
    report.max_steps = how.stop.max_steps;
    report.rel_tol = how.stop.rel_tol;
    step.impacts = at::zeros({B}, at::kLong);
  }
  Reason reason(int64_t b) const { return Reason(step.report.reason.data_ptr<uint8_t>()[b]); }
  bool stopped(int64_t b) const {
    return reason(b) != Reason::Converged && reason(b) != Reason::NotUnique;
  }
  bool any() const {
    return std::ranges::any_of(going, [](uint8_t own) { return own != 0; });
  }
  /// The first reason that is not Converged stays.
  void end(int64_t b, Reason why) {
    uint8_t& own = step.report.reason.data_ptr<uint8_t>()[b];
    if (own == uint8_t(Reason::Converged) || (!stopped(b) && why != Reason::Converged))
      own = uint8_t(why);
    if (stopped(b)) going[size_t(b)] = 0;
  }
  void take(const Report& report, const std::vector<uint8_t>& who) {
    Report& own = step.report;
    own.evaluations += report.evaluations;
    for (int64_t b = 0; b < int64_t(who.size()); ++b) {
      if (!who[size_t(b)]) continue;
      double& residual = own.residual.data_ptr<double>()[b];
      residual = std::max(residual, report.residual.data_ptr<double>()[b]);
      own.steps.data_ptr<int64_t>()[b] += report.steps.data_ptr<int64_t>()[b];
      end(b, Reason(report.reason.data_ptr<uint8_t>()[b]));
    }
  }
  /// Those of `who` whose problems had an answer: (B, 1).
  Tensor answered(std::vector<uint8_t> who) const {
    for (size_t b = 0; b < who.size(); ++b) who[b] = who[b] && !stopped(int64_t(b));
    return mask(who);
  }
  static Tensor mask(const std::vector<uint8_t>& who) {
    const Tensor found = at::zeros({int64_t(who.size()), 1}, at::kBool);
    std::ranges::copy(who, found.data_ptr<bool>());
    return found;
  }
};

World::World(const std::vector<Body>& bodies, const std::vector<HalfPlane>& planes,
             const std::vector<Joint>& joints, const WorldOptions& options)
    : options_(options) {
  options_.resolve.warm = nullptr;
  DEQ_CHECK(!bodies.empty(), "bodies = []; expected at least one");
  DEQ_CHECK(options.touching > 0, "WorldOptions.touching = {}; expected > 0", options.touching);
  DEQ_CHECK(options.max_impacts >= 0, "WorldOptions.max_impacts = {}; expected >= 0",
            options.max_impacts);
  const auto type = first_defined(bodies.front()).options().requires_grad(false);
  if (type.dtype() == at::kFloat) options_.touching = std::max(options_.touching, kTouchingFloats);
  const int64_t B = batch_of(bodies, planes, joints), n = int64_t(bodies.size());
  shapes_ = std::make_shared<WorldShapes>(bodies, planes, joints, B, type);
  std::vector<Tensor> masses, positions, velocities;
  for (const Body& body : bodies) {
    DEQ_CHECK(body.mass.defined(), "Body.mass is undefined; expected ()");
    const Tensor mass = by_world(body.mass, {}, B, "Body.mass"),
                 inertia = by_world(inertia_of(body), {}, B, "Body.inertia");
    masses.push_back(at::stack({mass, mass, inertia}, 1));
    positions.push_back(by_world(first_defined(body), {3}, B, "Body.position"));
    velocities.push_back(body.velocity.defined() ? by_world(body.velocity, {3}, B, "Body.velocity")
                                                 : at::zeros({B, 3}, type));
  }
  const Tensor mass = at::stack(masses, 1);
  mass_ = at::diag_embed(mass.flatten(1));
  weight_ = at::zeros({B, 3 * n}, type);
  if (options.gravity.defined()) {
    const Tensor g = by_world(options.gravity, {2}, B, "WorldOptions.gravity");
    weight_ = (mass * at::constant_pad_nd(g, {0, 1}).unsqueeze(1)).flatten(1);
  }
  position = at::stack(positions, 1);
  velocity = at::stack(velocities, 1);
}

namespace {

/// The meetings of each world, as many as the world with the most has.
std::vector<Encounter> padded(const std::vector<std::vector<Encounter>>& by_world) {
  size_t most = 0;
  for (const auto& own : by_world) most = std::max(most, own.size());
  std::vector<Encounter> all;
  for (const auto& own : by_world) {
    all.insert(all.end(), own.begin(), own.end());
    all.resize(all.size() + most - own.size());
  }
  return all;
}

/// The plain numbers of a batch of worlds.
struct Plain {
  Tensor corners, sides, q, v;
  Plain(const WorldShapes& shapes, const Tensor& position, const Tensor& velocity) {
    const auto plain = [](const Tensor& t) { return t.detach().to(at::kDouble).contiguous(); };
    corners = plain(shapes.corners()), sides = plain(shapes.sides());
    q = plain(position), v = plain(velocity);
  }
  WorldSearch search(const WorldShapes& shapes, int64_t b, double touching) const {
    const auto at = [&](const Tensor& t) { return t.data_ptr<double>() + b * t.stride(0); };
    return {shapes, at(corners), at(sides), at(q), at(v), touching};
  }
};

}  // namespace

/// Velocities behind the contacts and joints of the worlds `who`.
void World::resolve_at(const std::vector<uint8_t>& who, const Tensor& impulse, Progress& progress) {
  const int64_t B = batch();
  const Plain plain(*shapes_, position, velocity);
  std::vector<std::vector<Encounter>> touching(static_cast<size_t>(B));
  for (int64_t b = 0; b < B; ++b) {
    if (who[size_t(b)]) touching[size_t(b)] = plain.search(*shapes_, b, options_.touching).touch();
  }
  Contact contact{.mass = mass_, .velocity = velocity.flatten(1), .impulse = impulse};
  const std::vector<Encounter> all = padded(touching);
  if (!all.empty()) {
    const Encounters found = shapes_->measure(position, all);
    contact.normal = found.normal, contact.tangent = found.tangent;
    contact.friction = found.friction, contact.restitution = found.restitution;
  }
  Tensor apart;
  if (shapes_->joints() > 0) shapes_->measure_joints(position, apart, contact.joint);
  const Impact impact = resolve(contact, options_.resolve);
  progress.take(impact.report, who);
  velocity =
      at::where(progress.answered(who).unsqueeze(2), impact.velocity.view_as(velocity), velocity);
}

/// To the next meeting, or to the end of the step; which worlds met.
std::vector<uint8_t> World::move(Progress& progress) {
  const int64_t B = batch();
  const Plain plain(*shapes_, position, velocity);
  std::vector<std::vector<Encounter>> meetings(static_cast<size_t>(B));
  std::vector<uint8_t> met(static_cast<size_t>(B)), ends(static_cast<size_t>(B));
  const Tensor time = at::zeros({B, 1}, at::kDouble);
  for (int64_t b = 0; b < B; ++b) {
    if (!progress.going[size_t(b)]) continue;
    double& left = progress.left[size_t(b)];
    Encounter meeting;
    const double t = plain.search(*shapes_, b, options_.touching).first_meeting(left, meeting);
    if (!(t < left)) {
      ends[size_t(b)] = 1, progress.going[size_t(b)] = 0;
      continue;
    }
    time.data_ptr<double>()[b] = t;
    left -= t;
    met[size_t(b)] = meeting.corner >= 0;
    if (met[size_t(b)]) meetings[size_t(b)].push_back(meeting);
    if (++progress.step.impacts.data_ptr<int64_t>()[b] > options_.max_impacts) {
      --progress.step.impacts.data_ptr<int64_t>()[b];
      progress.end(b, Reason::MaxSteps);
    }
  }
  Tensor t = time.to(velocity.scalar_type());
  const std::vector<Encounter> all = padded(meetings);
  if (!all.empty()) {
    // The root of the gap, once more and with its gradient: a step of Newton's method.
    const Encounters found = shapes_->measure(position + t.unsqueeze(2) * velocity, all);
    const Tensor closing = (found.normal.select(1, 0) * velocity.flatten(1)).sum(1, true).detach();
    const Tensor real = Progress::mask(met);
    t = at::where(real, t - found.gap / at::where(real, closing, at::ones_like(closing)), t);
  }
  t = at::where(Progress::mask(ends), progress.rest, t);
  position = position + t.unsqueeze(2) * velocity;
  progress.rest = progress.rest - t;
  return met;
}

/// Joints that have drifted, and bodies that are in each other.
void World::put_right(Progress& progress) {
  const int64_t B = batch();
  const Plain plain(*shapes_, position, velocity);
  const bool joined = shapes_->joints() > 0;
  std::vector<std::vector<Encounter>> deep(static_cast<size_t>(B));
  std::vector<uint8_t> who(static_cast<size_t>(B));
  for (int64_t b = 0; b < B; ++b) {
    if (progress.stopped(b)) continue;
    const WorldSearch search = plain.search(*shapes_, b, options_.touching);
    const bool within = search.within();
    if (within) deep[size_t(b)] = search.touch();
    who[size_t(b)] = within || joined;
  }
  const std::vector<Encounter> all = padded(deep);
  if (all.empty() && !joined) return;
  Contact contact{.mass = mass_, .velocity = at::zeros_like(velocity).flatten(1)};
  if (!all.empty()) {
    const Encounters found = shapes_->measure(position, all);
    contact.normal = found.normal, contact.bias = found.gap;
  }
  if (joined) shapes_->measure_joints(position, contact.joint_bias, contact.joint);
  const Impact impact = resolve(contact, options_.resolve);
  progress.take(impact.report, who);
  position = position + impact.velocity.view_as(position);
}

WorldReport World::step(double dt, const Tensor& push) {
  DEQ_CHECK(dt > 0 && std::isfinite(dt), "dt = {}; expected > 0", dt);
  const int64_t B = weight_.size(0), n = shapes_->bodies();
  for (const auto& [name, state] : {std::pair{"position", &position}, {"velocity", &velocity}})
    DEQ_CHECK(state->sizes() == at::IntArrayRef({B, n, 3}), "{} = [{}]; expected [{}, {}, 3]", name,
              fmt::join(state->sizes(), ", "), B, n);
  Tensor force = weight_;
  if (push.defined()) force = force + by_world(push, {n, 3}, B, "push").flatten(1);
  Progress progress(B, dt, force.options().requires_grad(false), options_.resolve);
  const Tensor finite = position.detach().isfinite().flatten(1).all(1);
  for (int64_t b = 0; b < B; ++b) {
    if (finite[b].item<bool>()) continue;
    progress.end(b, Reason::NonFinite);
    progress.step.report.residual.data_ptr<double>()[b] = std::numeric_limits<double>::infinity();
  }
  resolve_at(progress.going, dt * force, progress);
  const Tensor none = at::zeros_like(force).detach();
  while (progress.any()) {
    std::vector<uint8_t> met = move(progress);
    for (int64_t b = 0; b < B; ++b) met[size_t(b)] = met[size_t(b)] && progress.going[size_t(b)];
    if (std::ranges::any_of(met, [](uint8_t own) { return own != 0; }))
      resolve_at(met, none, progress);
  }
  put_right(progress);
  const Tensor ended = progress.answered(std::vector<uint8_t>(size_t(B), 1)).unsqueeze(2);
  position = at::where(ended, position, position.detach());
  velocity = at::where(ended, velocity, velocity.detach());
  return progress.step;
}

}  // namespace deq
