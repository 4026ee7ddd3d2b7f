// Which bodies of one world touch, and which will meet first: plain numbers, without a tape.
#pragma once

#include <vector>

#include "deq/layers/world_shapes.h"

namespace deq {

/// One world's shapes and state.
class WorldSearch {
 public:
  /// `corners`, `sides`: the shapes' tables of this world; q and v (3n).
  WorldSearch(const WorldShapes& shapes, const double* corners, const double* sides,
              const double* q, const double* v, double touching);

  /// All meetings whose gap is no more than `touching`.
  std::vector<Encounter> touch() const;
  /// Whether a gap is less than minus `touching`.
  bool within() const;
  /// The first time before `left` at which two meet that do not touch now; `left` if none does.
  /// Bodies move along straight lines and turn evenly.
  double first_meeting(double left, Encounter& meeting) const;

 private:
  /// A line that parts a corner from what it may meet: no nearer than that as long as they move.
  struct Line {
    Encounter meeting;
    double gap, closing, bend;  // d gap / dt, and a bound on -d2 gap / dt2
  };
  Line line(const Candidate& candidate, double t, double left) const;
  /// No more than the gap is, at any time before `left`.
  double near(const Candidate& candidate, double left) const;
  double time_of(const Candidate& candidate, double left, Encounter& meeting) const;

  const WorldShapes& shapes_;
  const double *corners_, *sides_, *q_, *v_;
  double touching_;
  struct Turned {
    double cosine, sine, reach;
  };
  std::vector<Turned> bodies_;  // as they stand now
};

}  // namespace deq
