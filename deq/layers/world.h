// Bodies in a plane that move, touch and are joined, a batch of worlds at once, with exact
// gradients through impacts.
//
// A step: forces and gravity act as one impulse, together with the contacts that touch and the
// joints (contact.h); then bodies move along straight lines until two meet. The time of that is the
// root of their gap, with the gradient dt = -dgap / (d gap / dt) of an implicit function; there the
// impact is resolved, and the rest of the step goes on from it. At last joints that have drifted,
// and bodies that have got into each other, are put right by the least move, in the norm of the
// masses. A step that ignores when within it an impact happens has the right value and a wrong
// gradient.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <variant>
#include <vector>

#include "deq/layers/contact.h"

namespace deq {

// Tensors are of one floating type, on the CPU, each as said or with B before it; undefined: 0.

/// Round.
struct Disc {
  at::Tensor radius;  ///< () > 0
};
/// A rectangle.
struct Box {
  at::Tensor width, height;  ///< () > 0, along its own x and y
};

/// What moves.
struct Body {
  std::variant<Disc, Box> shape;
  at::Tensor mass;      ///< () > 0
  at::Tensor inertia;   ///< () > 0, about its centre; undefined: of a shape of even density
  at::Tensor position;  ///< (3): x, y, angle
  at::Tensor velocity;  ///< (3)
  at::Tensor friction, restitution;  ///< (); those of a contact are the means of the two that meet
};

/// Points x with normal . x >= offset are outside.
struct HalfPlane {
  at::Tensor normal;  ///< (2), of any length but 0
  at::Tensor offset;  ///< (), for the normal of length 1
  at::Tensor friction, restitution;
};

/// Two bodies turn about a common point. They do not touch each other.
struct Joint {
  int64_t first = 0;
  int64_t second = -1;  ///< -1: the ground
  at::Tensor anchor;    ///< (2), where that point is at first
};

/// What holds for all bodies, and how a step is resolved.
struct WorldOptions {
  at::Tensor gravity;        ///< (2), an acceleration
  int64_t max_impacts = 64;  ///< in a step, at times of their own
  double touching = 1e-9;    ///< bodies touch whose gap is no more than this (in float 1e-5)
  ResolveOptions resolve = {};
};

/// How a step of each world ended.
struct WorldReport {
  /// `Converged`, or of the first of its contact problems that was not, its reason: there the world
  /// stands still, and its state has no gradient, except after `NotUnique`. `MaxSteps` also says
  /// that impacts ran out, `NonFinite` that the state was not finite. `residual` is the largest,
  /// `steps` all systems and pivots.
  Report report;
  at::Tensor impacts;  ///< (B) int64, at times of their own within the step
};

class WorldShapes;

/// B worlds of the same bodies with numbers of their own. Throws deq::Error for what does not fit.
class World {
 public:
  World(const std::vector<Body>& bodies, const std::vector<HalfPlane>& planes = {},
        const std::vector<Joint>& joints = {}, const WorldOptions& options = {});

  int64_t batch() const { return position.size(0); }
  int64_t bodies() const { return position.size(1); }

  /// Moves on by dt > 0. `push` (n, 3) or (B, n, 3): forces and torques meanwhile.
  WorldReport step(double dt, const at::Tensor& push = {});

  at::Tensor position;  ///< (B, n, 3), with their tape; may be set
  at::Tensor velocity;  ///< (B, n, 3)

 private:
  struct Progress;

  void resolve_at(const std::vector<uint8_t>& who, const at::Tensor& impulse, Progress& progress);
  std::vector<uint8_t> move(Progress& progress);
  void put_right(Progress& progress);

  WorldOptions options_;
  at::Tensor mass_;    // (B, 3n, 3n)
  at::Tensor weight_;  // (B, 3n), gravity's force
  std::shared_ptr<const WorldShapes> shapes_;
};

}  // namespace deq
