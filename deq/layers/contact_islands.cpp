#include "deq/layers/contact_islands.h"

#include <algorithm>
#include <limits>

#include "deq/layers/joined_sets.h"

namespace deq {
namespace {

/// Which island's reason is the world's.
int rank(Reason reason) {
  constexpr Reason kWorstFirst[] = {Reason::NonFinite, Reason::NotConvex, Reason::Infeasible,
                                    Reason::MaxSteps, Reason::NotUnique};
  return int(std::ranges::find(kWorstFirst, reason) - kWorstFirst);
}

using Places = std::vector<int32_t>;

void gather(const double* from, const Places& places, std::vector<double>& to) {
  for (const int32_t i : places) to.push_back(from[i]);
}
void gather(const double* from, int64_t width, const Places& rows, const Places& columns,
            std::vector<double>& to) {
  for (const int32_t i : rows) gather(from + i * width, columns, to);
}
template <class T>
void scatter(const T* own, const Places& places, T* to) {
  for (size_t k = 0; k < places.size(); ++k) to[places[k]] = own[k];
}

/// An island as a world of its own: copies that one thread uses again and again.
class OwnWorld {
 public:
  OwnWorld(const ContactShape& world, const ContactIsland& island)
      : shape{int64_t(island.velocities.size()), int64_t(island.contacts.size()),
              int64_t(island.joints.size())},
        world_(world),
        island_(island) {}

  ContactData data(const ContactData& of) {
    const auto& [velocities, contacts, joints, factor] = island_;
    const int64_t n = world_.n;
    for (auto& own : numbers_) own.clear();
    gather(of.mass, n, velocities, velocities, numbers_[0]);
    gather(of.velocity, velocities, numbers_[1]);
    gather(of.impulse, velocities, numbers_[2]);
    gather(of.normal, n, contacts, velocities, numbers_[3]);
    gather(of.tangent, n, contacts, velocities, numbers_[4]);
    gather(of.restitution, contacts, numbers_[5]);
    gather(of.friction, contacts, numbers_[6]);
    gather(of.joint, n, joints, velocities, numbers_[7]);
    gather(of.bias, contacts, numbers_[8]);
    gather(of.joint_bias, joints, numbers_[9]);
    const auto at = [&](size_t i) { return numbers_[i].data(); };
    return {at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8), at(9)};
  }

  /// Room for its answer.
  ContactAnswer answer() {
    const auto [n, m, p] = shape;
    out_[0].assign(size_t(n), 0);
    out_[1].assign(size_t(m), 0);
    out_[2].assign(size_t(m), 0);
    out_[3].assign(size_t(p), 0);
    out_[4].assign(size_t(p + m), 0);
    touch_.assign(size_t(m), 0);
    ContactAnswer own;
    own.velocity = out_[0].data(), own.normal = out_[1].data(), own.friction = out_[2].data();
    own.joint = out_[3].data(), own.certificate = out_[4].data(), own.touch = touch_.data();
    return own;
  }
  void write(const ContactAnswer& own, ContactAnswer& all) const {
    scatter(own.velocity, island_.velocities, all.velocity);
    scatter(own.normal, island_.contacts, all.normal);
    scatter(own.friction, island_.contacts, all.friction);
    scatter(own.joint, island_.joints, all.joint);
    scatter(own.touch, island_.contacts, all.touch);
  }
  void certify(const ContactAnswer& own, double* certificate) const {
    std::fill_n(certificate, world_.p + world_.m, 0.0);
    scatter(own.certificate, island_.joints, certificate);
    scatter(own.certificate + shape.p, island_.contacts, certificate + world_.p);
  }

  /// The part of gradients in the world's answer that is its own.
  ContactCotangents part(const ContactCotangents& g) {
    for (auto& own : out_) own.clear();
    gather(g.velocity, island_.velocities, out_[0]);
    gather(g.normal, island_.contacts, out_[1]);
    gather(g.friction, island_.contacts, out_[2]);
    gather(g.joint, island_.joints, out_[3]);
    return {out_[0].data(), out_[1].data(), out_[2].data(), out_[3].data()};
  }
  void write(const ContactAdjoint& own, ContactAdjoint& all) const {
    scatter(own.u.data(), island_.velocities, all.u.data());
    scatter(own.normal.data(), island_.contacts, all.normal.data());
    scatter(own.tangent.data(), island_.contacts, all.tangent.data());
    scatter(own.joint.data(), island_.joints, all.joint.data());
  }

  const ContactShape shape;

 private:
  const ContactShape& world_;
  const ContactIsland& island_;
  static thread_local std::array<std::vector<double>, 10> numbers_;
  static thread_local std::array<std::vector<double>, 5> out_;
  static thread_local std::vector<uint8_t> touch_;
};

thread_local std::array<std::vector<double>, 10> OwnWorld::numbers_;
thread_local std::array<std::vector<double>, 5> OwnWorld::out_;
thread_local std::vector<uint8_t> OwnWorld::touch_;

}  // namespace

/// Rows of zeros go to the first island.
void SolvedIslands::divide(const ContactShape& shape, const ContactData& data) {
  const auto [n, m, p] = shape;
  JoinedSets sets(n);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < i; ++j)
      if (data.mass[i * n + j] != 0 || data.mass[j * n + i] != 0) sets.join(i, j);
  const auto tie = [&, n = n](const double* row, int64_t first) {
    for (int64_t j = 0; j < n; ++j) {
      if (row[j] == 0) continue;
      if (first >= 0) sets.join(j, first);
      first = j;
    }
    return first;
  };
  std::vector<int64_t> of_contact, of_joint;  // one of its velocities
  for (int64_t i = 0; i < m; ++i)
    of_contact.push_back(tie(data.tangent + i * n, tie(data.normal + i * n, -1)));
  for (int64_t j = 0; j < p; ++j) of_joint.push_back(tie(data.joint + j * n, -1));
  std::vector<int32_t> number(size_t(n), -1);
  islands_.clear();
  for (int64_t i = 0; i < n; ++i) {
    int32_t& own = number[size_t(sets.of(i))];
    if (own < 0) own = int32_t(islands_.size()), islands_.emplace_back();
    islands_[size_t(own)].velocities.push_back(int32_t(i));
  }
  const auto island_of = [&](int64_t velocity) -> ContactIsland& {
    return islands_[size_t(number[size_t(sets.of(std::max<int64_t>(0, velocity)))])];
  };
  for (int64_t i = 0; i < m; ++i) island_of(of_contact[size_t(i)]).contacts.push_back(int32_t(i));
  for (int64_t j = 0; j < p; ++j) island_of(of_joint[size_t(j)]).joints.push_back(int32_t(j));
}

void SolvedIslands::solve(const ContactShape& shape, const ContactData& data,
                          const ResolveOptions& options, const uint8_t* warm, ContactAnswer& answer,
                          bool differentiable) {
  divide(shape, data);
  if (islands_.size() == 1) {
    ContactFactor& factor = islands_[0].factor;
    solve_contact(shape, data, options, warm, answer, differentiable ? &factor : nullptr);
    known_ = factor.known;
    return;
  }
  answer.reason = Reason::Converged;
  thread_local std::vector<uint8_t> own_warm;
  for (ContactIsland& island : islands_) {
    OwnWorld world(shape, island);
    ContactAnswer own = world.answer();
    own_warm.clear();
    for (const int32_t i : island.contacts) own_warm.push_back(warm ? warm[i] : 0);
    solve_contact(world.shape, world.data(data), options, warm ? own_warm.data() : nullptr, own,
                  differentiable ? &island.factor : nullptr);
    world.write(own, answer);
    answer.residual = std::max(answer.residual, own.residual);
    answer.steps = std::max(answer.steps, own.steps);
    answer.factorisations += own.factorisations;
    answer.weak += own.weak;
    answer.dependent += own.dependent;
    if (rank(own.reason) >= rank(answer.reason)) continue;
    answer.reason = own.reason;
    world.certify(own, answer.certificate);
  }
  known_ = answer.reason == Reason::Converged;
}

double SolvedIslands::differentiate(const ContactShape& shape, const ContactData& data,
                                    const ContactAnswer& answer, const ContactCotangents& g,
                                    const ContactGradients& into) const {
  thread_local ContactAdjoint all, own;
  if (islands_.size() == 1) {
    const ContactFactor& factor = islands_[0].factor;
    const double residual = factor.solve_adjoint(shape, data, g, all);
    add_gradients(shape, data, answer, factor.held, all, g, into);
    return residual;
  }
  all.u.assign(size_t(shape.n), 0), all.joint.assign(size_t(shape.p), 0);
  all.normal.assign(size_t(shape.m), 0), all.tangent.assign(size_t(shape.m), 0);
  std::vector<HeldContact> held(size_t(shape.m));
  double residual = 0;
  for (const ContactIsland& island : islands_) {
    OwnWorld world(shape, island);
    const double left =
        island.factor.solve_adjoint(world.shape, world.data(data), world.part(g), own);
    if (!(left <= residual)) residual = left;  // a NaN stays
    world.write(own, all);
    scatter(island.factor.held.data(), island.contacts, held.data());
  }
  add_gradients(shape, data, answer, held, all, g, into);
  return residual;
}

}  // namespace deq
