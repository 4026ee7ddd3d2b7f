// What bodies of a world are made of, as corners and sides: all contacts are between a corner,
// which may be round (a disc is one), and a side or another corner.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "deq/layers/world.h"

namespace deq {

/// A corner meets a side or a corner, by their numbers; `side` and `other`: one of them is -1.
struct Encounter {
  int32_t corner = -1, side = -1, other = -1;
  bool operator==(const Encounter&) const = default;
};

/// A corner that may meet a body or the ground's side.
struct Candidate {
  int32_t corner = -1, body = -1, side = -1;
};

/// Gaps of some meetings, (B, K), and their rows, (B, K, 3n); of none: gap and rows 0.
struct Encounters {
  at::Tensor gap, normal, tangent, friction, restitution;
};

/// Tables with B worlds each; shapes of bodies do not change.
class WorldShapes {
 public:
  WorldShapes(const std::vector<Body>& bodies, const std::vector<HalfPlane>& planes,
              const std::vector<Joint>& joints, int64_t batch, const at::TensorOptions& options);

  int64_t bodies() const { return bodies_; }
  int64_t joints() const { return int64_t(joints_.size()); }
  const std::vector<Candidate>& candidates() const { return candidates_; }
  const std::vector<int32_t>& corner_body() const { return corner_body_; }
  /// First corner and side of a body, and how many of each: 1 and 0 of a disc, 4 and 4 of a box.
  struct Range {
    int32_t corner, side;
    bool box;
  };
  const std::vector<Range>& ranges() const { return ranges_; }
  /// (B, corners, 3): x, y in the body's own frame, radius; (B, sides, 3): normal, offset.
  const at::Tensor& corners() const { return corners_; }
  const at::Tensor& sides() const { return sides_; }

  /// With the tape of position (B, n, 3) and shapes. `meetings`: K of each world.
  Encounters measure(const at::Tensor& position, const std::vector<Encounter>& meetings) const;
  /// How far joints are apart (B, 2j), and their rows (B, 2j, 3n).
  void measure_joints(const at::Tensor& position, at::Tensor& apart, at::Tensor& rows) const;

 private:
  void add_body(const Body& body, int32_t number);
  void add_candidates(const std::vector<Joint>& joints);

  int64_t bodies_, batch_;
  at::TensorOptions options_;
  std::vector<Range> ranges_;
  std::vector<int32_t> corner_body_, side_body_, side_owner_;
  std::vector<Candidate> candidates_;
  at::Tensor corners_, sides_, friction_, restitution_;  // the latter by owner, (B, n + planes)
  struct Pin {
    int64_t first, second;
    at::Tensor at_first, at_second;  // (B, 2) in their frames
  };
  std::vector<Pin> joints_;
  std::vector<at::Tensor> corner_list_, side_list_;
};

/// t, of the shape `own` or with a batch before it, as (B, own...).
at::Tensor by_world(const at::Tensor& t, at::IntArrayRef own, int64_t batch, const char* name);

}  // namespace deq
