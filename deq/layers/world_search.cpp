#include "deq/layers/world_search.h"

#include <algorithm>
#include <cmath>

namespace deq {
namespace {

constexpr int kLines = 500;     // tried for one meeting
constexpr double kMet = 1e-13;  // of lengths: a gap that is closed

struct Point {
  double x = 0, y = 0;
  Point operator+(const Point& o) const { return {x + o.x, y + o.y}; }
  Point operator-(const Point& o) const { return {x - o.x, y - o.y}; }
  Point operator*(double a) const { return {a * x, a * y}; }
};
double dot(const Point& a, const Point& b) { return a.x * b.x + a.y * b.y; }
double length(const Point& a) { return std::sqrt(dot(a, a)); }
Point across(const Point& a) { return {-a.y, a.x}; }

/// Of a body in motion, at a time.
struct Moving {
  Point at, speed;
  double turning = 0, cosine = 1, sine = 0;
  Moving(const double* q, const double* v, double t, double c, double s)
      : at{q[0] + t * v[0], q[1] + t * v[1]}, speed{v[0], v[1]}, turning(v[2]), cosine(c), sine(s) {
    if (t == 0) return;
    cosine = std::cos(q[2] + t * v[2]), sine = std::sin(q[2] + t * v[2]);
  }
  Point out(const Point& l) const { return {cosine * l.x - sine * l.y, sine * l.x + cosine * l.y}; }
  Point in(const Point& l) const { return {cosine * l.x + sine * l.y, cosine * l.y - sine * l.x}; }
};

/// The side of a box (half width and height) that is nearest to y, or -1 and the corner that is.
struct Nearest {
  int side = -1, corner = -1;
};
Nearest nearest(const Point& y, const Point& centre, double w, double h, double radius,
                double touching) {
  const double fx = std::fabs(y.x) - w, fy = std::fabs(y.y) - h;
  const int right = y.x > 0 ? 1 : 0, up = y.y > 0 ? 1 : 0;
  const bool outside = fx > 0 && fy > 0;
  if (outside && (radius > 0 || std::hypot(fx, fy) > touching)) return {-1, right + 2 * up};
  bool along_x = fx > fy;
  // Two corners: the side that faces the other body's centre.
  if (radius == 0 && std::fabs(fx) <= touching && std::fabs(fy) <= touching)
    along_x = std::fabs(centre.x) - w > std::fabs(centre.y) - h;
  return {along_x ? right : 2 + up, -1};
}

}  // namespace

WorldSearch::WorldSearch(const WorldShapes& shapes, const double* corners, const double* sides,
                         const double* q, const double* v, double touching)
    : shapes_(shapes), corners_(corners), sides_(sides), q_(q), v_(v), touching_(touching) {
  for (int64_t i = 0; i < shapes.bodies(); ++i) {
    const double* const corner = corners + 3 * shapes.ranges()[size_t(i)].corner;
    bodies_.push_back({std::cos(q[3 * i + 2]), std::sin(q[3 * i + 2]),
                       std::hypot(corner[0], corner[1]) + corner[2]});
  }
}

double WorldSearch::near(const Candidate& candidate, double left) const {
  const int32_t body = shapes_.corner_body()[size_t(candidate.corner)];
  const auto speed = [&](int32_t i) {
    const double* const v = v_ + 3 * i;
    return length({v[0], v[1]}) + std::fabs(v[2]) * bodies_[size_t(i)].reach;
  };
  const Point at{q_[3 * body], q_[3 * body + 1]};
  const double reach = bodies_[size_t(body)].reach, way = left > 0 ? left * speed(body) : 0;
  if (candidate.side >= 0) {
    const double* const side = sides_ + 3 * candidate.side;
    return dot(at, {side[0], side[1]}) - side[2] - reach - way;
  }
  const Point other{q_[3 * candidate.body], q_[3 * candidate.body + 1]};
  return length(at - other) - reach - bodies_[size_t(candidate.body)].reach - way -
         (left > 0 ? left * speed(candidate.body) : 0);
}

WorldSearch::Line WorldSearch::line(const Candidate& candidate, double t, double left) const {
  const int32_t body = shapes_.corner_body()[size_t(candidate.corner)];
  const double* const corner = corners_ + 3 * candidate.corner;
  const auto moving = [&](int32_t i) {
    const Turned& now = bodies_[size_t(i)];
    return Moving(q_ + 3 * i, v_ + 3 * i, t, now.cosine, now.sine);
  };
  const Moving a = moving(body);
  const Point arm = a.out({corner[0], corner[1]});
  const double reach = length(arm), radius = corner[2];
  const Point x = a.at + arm, speed = a.speed + across(arm) * a.turning;
  Line found;
  found.meeting.corner = candidate.corner;
  found.bend = a.turning * a.turning * reach;
  if (candidate.side >= 0) {
    const double* const side = sides_ + 3 * candidate.side;
    const Point normal{side[0], side[1]};
    found.meeting.side = candidate.side;
    found.gap = dot(normal, x) - side[2] - radius;
    found.closing = dot(normal, speed);
    return found;
  }
  const Moving b = moving(candidate.body);
  const WorldShapes::Range& range = shapes_.ranges()[size_t(candidate.body)];
  const Point apart = x - b.at;
  if (!range.box) {
    const double distance = length(apart);
    const Point normal = distance > 0 ? apart * (1 / distance) : Point{1, 0};
    found.meeting.other = range.corner;
    found.gap = distance - corners_[3 * range.corner + 2] - radius;
    found.closing = dot(normal, speed - b.speed);
    return found;
  }
  const double w = sides_[3 * range.side + 2], h = sides_[3 * (range.side + 2) + 2];
  const Point y = b.in(apart);
  const Nearest near = nearest(y, b.in(a.at - b.at), w, h, radius, touching_);
  Point normal;
  if (near.side >= 0) {
    const double* const side = sides_ + 3 * (range.side + near.side);
    found.meeting.side = range.side + near.side;
    normal = b.out({side[0], side[1]});
    found.gap = dot(normal, apart) - side[2] - radius;
  } else {
    const double* const other = corners_ + 3 * (range.corner + near.corner);
    found.meeting.other = range.corner + near.corner;
    const Point between = apart - b.out({other[0], other[1]});
    normal = between * (1 / length(between));
    found.gap = length(between) - radius;
  }
  found.closing = dot(normal, speed - b.speed) + b.turning * dot(across(normal), apart);
  const double fastest = length(a.speed - b.speed) + std::fabs(a.turning) * reach;
  found.bend +=
      b.turning * b.turning * (length(apart) + fastest * left) + 2 * std::fabs(b.turning) * fastest;
  return found;
}

std::vector<Encounter> WorldSearch::touch() const {
  std::vector<Encounter> found;
  for (const Candidate& candidate : shapes_.candidates()) {
    if (near(candidate, 0) > touching_) continue;
    const Line own = line(candidate, 0, 0);
    if (own.gap <= touching_) found.push_back(own.meeting);
  }
  return found;
}

bool WorldSearch::within() const {
  return std::ranges::any_of(shapes_.candidates(), [&](const Candidate& candidate) {
    return near(candidate, 0) < -touching_ && line(candidate, 0, 0).gap < -touching_;
  });
}

/// A line bounds the gap from below, bent or not: a step to where it may close never goes too far.
double WorldSearch::time_of(const Candidate& candidate, double left, Encounter& meeting) const {
  Line own = line(candidate, 0, left);
  if (own.gap <= touching_) return left;
  double t = 0;
  for (int i = 0; i < kLines; ++i) {
    const double size = std::fabs(corners_[3 * candidate.corner + 2]) + std::fabs(own.gap) + 1;
    if (own.gap <= kMet * size) {
      meeting = own.meeting;
      return own.closing < 0 ? t : left;
    }
    const double root = std::sqrt(own.closing * own.closing + 2 * own.bend * own.gap);
    const double towards = root - own.closing;
    if (!(towards > 0)) return left;
    t += 2 * own.gap / towards;
    if (!(t < left)) return left;
    own = line(candidate, t, left - t);
  }
  meeting = {};
  return t;  // not yet: to be looked at again from there
}

double WorldSearch::first_meeting(double left, Encounter& meeting) const {
  double first = left;
  meeting = {};
  for (const Candidate& candidate : shapes_.candidates()) {
    if (near(candidate, first) > 0) continue;
    Encounter own;
    const double t = time_of(candidate, first, own);
    if (t < first) first = t, meeting = own;
  }
  return first;
}

}  // namespace deq
