#include "deq/layers/contact_islands.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "deq/layers/contact_solver.h"
#include "deq/layers/dense_vector.h"

namespace deq {
namespace {

using Index = std::vector<int32_t>;

}  // namespace

int32_t ContactIslands::tie(const double* row, int32_t first) {
  for (int32_t j = 0; j < int32_t(shape_.n); ++j) {
    if (row[j] == 0) continue;
    if (first < 0) first = j;
    if (number_[size_t(j)] != number_[size_t(first)]) join(number_[size_t(j)], first);
  }
  return first;
}

void ContactIslands::join(int32_t set, int32_t first) {
  std::ranges::replace(number_, set, number_[size_t(first)]);
  --sets_;
}

void ContactIslands::find(const ContactShape& shape, const ContactData& data) {
  known_ = true;
  const auto [n, m, p] = shape_ = shape;
  sets_ = int32_t(n), count_ = 1;
  contact_.clear(), joint_.clear();
  number_.resize(size_t(n));
  std::iota(number_.begin(), number_.end(), 0);
  for (int32_t i = 0; i < n; ++i) {
    const double* const row = data.mass + i * n;
    for (int32_t j = 0; j < n; ++j)
      if (row[j] != 0 && number_[size_t(i)] != number_[size_t(j)]) join(number_[size_t(i)], j);
  }
  for (int64_t r = 0; r < p && sets_ > 1; ++r) joint_.push_back(tie(data.joint + r * n));
  for (int64_t r = 0; r < m && sets_ > 1; ++r) {
    const int32_t first = tie(data.normal + r * n);
    contact_.push_back(first < 0 ? first : tie(data.tangent + r * n, first));
  }
  if (sets_ <= 1) return;
  place_.assign(size_t(n), -1);  // of sets that a row is of
  count_ = 0;
  for (const Index* firsts : {&contact_, &joint_}) {
    for (const int32_t first : *firsts) {
      if (first < 0) continue;
      int32_t& own = place_[size_t(number_[size_t(first)])];
      if (own < 0) own = count_++;
    }
  }
  count_ = std::max(1, count_);
  for (int32_t& own : number_) own = std::max(0, place_[size_t(own)]);
}

std::vector<ContactIsland> ContactIslands::parts() const {
  std::vector<ContactIsland> parts(static_cast<size_t>(count_));
  const auto of = [&](int32_t first) -> ContactIsland& {
    return parts[first < 0 ? 0 : size_t(number_[size_t(first)])];
  };
  for (int32_t i = 0; i < shape_.n; ++i) of(i).numbers.push_back(i);
  for (int32_t r = 0; r < shape_.p; ++r) of(joint_[size_t(r)]).joints.push_back(r);
  for (int32_t r = 0; r < shape_.m; ++r)
    if (contact_[size_t(r)] >= 0) of(contact_[size_t(r)]).contacts.push_back(r);
  return parts;
}

namespace {

bool all_finite(const double* x, int64_t count) {
  return std::all_of(x, x + count, [](double value) { return std::isfinite(value); });
}
bool all_finite(const ContactShape& shape, const ContactData& data) {
  const auto [n, m, p] = shape;
  return all_finite(data.mass, n * n) && all_finite(data.velocity, n) &&
         all_finite(data.impulse, n) && all_finite(data.normal, m * n) &&
         all_finite(data.tangent, m * n) && all_finite(data.restitution, m) &&
         all_finite(data.friction, m) && all_finite(data.joint, p * n) &&
         all_finite(data.bias, m) && all_finite(data.joint_bias, p);
}

template <class T>
std::vector<T> gathered(const T* from, const Index& index) {
  std::vector<T> own;
  for (const int32_t i : index) own.push_back(from[i]);
  return own;
}
template <class T>
void scatter(const std::vector<T>& own, const Index& index, T* to) {
  for (size_t k = 0; k < index.size(); ++k) to[index[k]] = own[k];
}

/// An island's numbers in a row.
struct IslandData {
  ContactShape shape;
  std::vector<double> mass, velocity, impulse, normal, tangent, restitution, friction, joint, bias,
      joint_bias;

  IslandData(const ContactIsland& of, int64_t n, const ContactData& data)
      : shape{int64_t(of.numbers.size()), int64_t(of.contacts.size()), int64_t(of.joints.size())},
        velocity(gathered(data.velocity, of.numbers)),
        impulse(gathered(data.impulse, of.numbers)),
        restitution(gathered(data.restitution, of.contacts)),
        friction(gathered(data.friction, of.contacts)),
        bias(gathered(data.bias, of.contacts)),
        joint_bias(gathered(data.joint_bias, of.joints)) {
    const auto rows = [&](const double* M, const Index& index) {
      std::vector<double> own;
      own.reserve(index.size() * of.numbers.size());
      for (const int32_t r : index)
        for (const int32_t j : of.numbers) own.push_back(M[r * n + j]);
      return own;
    };
    mass = rows(data.mass, of.numbers), joint = rows(data.joint, of.joints);
    normal = rows(data.normal, of.contacts), tangent = rows(data.tangent, of.contacts);
  }
  ContactData data() const {
    return {mass.data(),        velocity.data(), impulse.data(), normal.data(), tangent.data(),
            restitution.data(), friction.data(), joint.data(),   bias.data(),   joint_bias.data()};
  }
};

/// Which island's reason is the world's.
int rank(Reason reason) {
  constexpr Reason kWorstFirst[] = {Reason::NonFinite, Reason::NotConvex, Reason::Infeasible,
                                    Reason::MaxSteps, Reason::NotUnique};
  return int(std::ranges::find(kWorstFirst, reason) - kWorstFirst);
}

/// One island's answer, to its places in the world's.
void solve_part(const ContactShape& shape, const ContactData& data, const ResolveOptions& options,
                const uint8_t* warm, ContactSolver& solver, ContactFactor::Part& part,
                bool differentiable, ContactAnswer& answer) {
  const ContactIsland& of = part.of;
  const IslandData island(of, shape.n, data);
  const auto [n, m, p] = island.shape;
  std::vector<double> velocity(static_cast<size_t>(n)), normal(static_cast<size_t>(m)),
      friction(static_cast<size_t>(m)), joint(static_cast<size_t>(p)), certificate(size_t(p + m));
  std::vector<uint8_t> touch(static_cast<size_t>(m)), known;
  if (warm) known = gathered(warm, of.contacts);
  ContactAnswer own{.velocity = velocity.data(),
                    .normal = normal.data(),
                    .friction = friction.data(),
                    .joint = joint.data(),
                    .certificate = certificate.data(),
                    .touch = touch.data()};
  solver.solve(island.shape, island.data(), options, warm ? known.data() : nullptr, nullptr, own,
               part.factor, differentiable);
  scatter(velocity, of.numbers, answer.velocity);
  scatter(normal, of.contacts, answer.normal);
  scatter(friction, of.contacts, answer.friction);
  scatter(touch, of.contacts, answer.touch);
  scatter(joint, of.joints, answer.joint);
  if (rank(own.reason) < rank(answer.reason)) {
    answer.reason = own.reason;
    std::fill_n(answer.certificate, shape.p + shape.m, 0.0);
    for (int64_t j = 0; j < p; ++j)
      answer.certificate[of.joints[size_t(j)]] = certificate[size_t(j)];
    for (int64_t i = 0; i < m; ++i)
      answer.certificate[shape.p + of.contacts[size_t(i)]] = certificate[size_t(p + i)];
  }
  answer.residual = std::max(answer.residual, own.residual);
  answer.steps = std::max(answer.steps, own.steps);
  answer.factorisations += own.factorisations;
  answer.weak += own.weak;
  answer.dependent += own.dependent;
}

/// into += x y
void add(double x, const double* y, int64_t n, double* into) {
  if (x == 0) return;
  for (int64_t j = 0; j < n; ++j) into[j] += x * y[j];
}

}  // namespace

void solve_contact(const ContactShape& shape, const ContactData& data,
                   const ResolveOptions& options, const uint8_t* warm, ContactAnswer& answer,
                   ContactFactor* factor) {
  thread_local ContactSolver solver;
  thread_local ContactFactor passing;
  ContactFactor& kept = factor ? *factor : passing;
  kept.known = false;
  if (!all_finite(shape, data)) {
    answer.reason = Reason::NonFinite;
    answer.residual = std::numeric_limits<double>::infinity();
    return;
  }
  thread_local ContactIslands islands;
  islands.forget();
  kept.parts.resize(1);
  kept.parts.front().of = {};
  IslandFactor& whole = kept.parts.front().factor;
  if (solver.solve(shape, data, options, warm, &islands, answer, whole, factor != nullptr)) {
    kept.known = whole.known;
    return;
  }
  answer.reason = Reason::Converged;
  answer.residual = 0;
  answer.steps = answer.weak = answer.dependent = 0;
  std::vector<ContactIsland> parts = islands.parts();
  kept.parts.resize(parts.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    kept.parts[i].of = std::move(parts[i]);
    solve_part(shape, data, options, warm, solver, kept.parts[i], factor != nullptr, answer);
  }
  kept.known = factor && answer.reason == Reason::Converged;
}

namespace {

/// u and y of all islands.
double adjoint_of(const ContactShape& shape, const ContactData& data,
                  const std::vector<ContactFactor::Part>& parts, ContactAdjoint& all) {
  if (parts.size() == 1) return parts.front().factor.solve_adjoint(shape, data, all);
  double residual = 0;
  ContactAdjoint whole;
  std::swap(whole, all);
  all = {std::vector<double>(whole.u.size()), std::vector<double>(whole.joint.size()),
         std::vector<double>(whole.normal.size()), std::vector<double>(whole.tangent.size())};
  for (const auto& [of, factor] : parts) {
    const IslandData island(of, shape.n, data);
    ContactAdjoint own{
        gathered(whole.u.data(), of.numbers), gathered(whole.joint.data(), of.joints),
        gathered(whole.normal.data(), of.contacts), gathered(whole.tangent.data(), of.contacts)};
    residual = std::max(residual, factor.solve_adjoint(island.shape, island.data(), own));
    scatter(own.u, of.numbers, all.u.data());
    scatter(own.joint, of.joints, all.joint.data());
    scatter(own.normal, of.contacts, all.normal.data());
    scatter(own.tangent, of.contacts, all.tangent.data());
  }
  return residual;
}

/// By contact.
std::vector<HeldContact> held_by(const std::vector<ContactFactor::Part>& parts, int64_t m) {
  if (parts.size() == 1) return parts.front().factor.held;
  std::vector<HeldContact> held(static_cast<size_t>(m));
  for (const auto& [of, factor] : parts) scatter(factor.held, of.contacts, held.data());
  return held;
}

}  // namespace

double ContactFactor::differentiate(const ContactShape& shape, const ContactData& data,
                                    const ContactAnswer& answer, const ContactCotangents& g,
                                    const ContactGradients& into) const {
  const auto [n, m, p] = shape;
  const std::vector<HeldContact> held = held_by(parts, m);
  thread_local ContactAdjoint adjoint;
  adjoint.u.assign(g.velocity, g.velocity + n);
  adjoint.joint.assign(g.joint, g.joint + p);
  adjoint.normal.assign(g.normal, g.normal + m);
  adjoint.tangent.assign(g.friction, g.friction + m);
  const double residual = adjoint_of(shape, data, parts, adjoint);
  const auto& [u, ye, yn, yt] = adjoint;
  if (into.impulse) add(1, u.data(), n, into.impulse);
  for (int64_t i = 0; i < n; ++i) {
    if (into.velocity) add(u[size_t(i)], data.mass + i * n, n, into.velocity);
    if (!into.mass) continue;
    for (int64_t j = 0; j < n; ++j)
      into.mass[i * n + j] -= u[size_t(i)] * (answer.velocity[j] - data.velocity[j]);
  }
  for (int64_t j = 0; j < p; ++j) {
    if (into.joint_bias) into.joint_bias[j] -= ye[size_t(j)];
    if (!into.joint) continue;
    add(answer.joint[j], u.data(), n, into.joint + j * n);
    add(-ye[size_t(j)], answer.velocity, n, into.joint + j * n);
  }
  for (int64_t i = 0; i < m; ++i) {
    const HeldContact& own = held[size_t(i)];
    if (!own.normal && !own.tangent && answer.normal[i] == 0) continue;
    const double *const normal = data.normal + i * n, *const tangent = data.tangent + i * n;
    const double before = dot(normal, data.velocity, n), e = data.restitution[i];
    if (into.velocity) add(-e * yn[size_t(i)], normal, n, into.velocity);
    if (into.normal) {
      add(answer.normal[i], u.data(), n, into.normal + i * n);
      add(-yn[size_t(i)], answer.velocity, n, into.normal + i * n);
      add(-e * yn[size_t(i)], data.velocity, n, into.normal + i * n);
    }
    if (into.tangent) {
      add(answer.friction[i], u.data(), n, into.tangent + i * n);
      add(-yt[size_t(i)], answer.velocity, n, into.tangent + i * n);
    }
    if (into.restitution) into.restitution[i] -= yn[size_t(i)] * before;
    if (into.bias) into.bias[i] -= yn[size_t(i)];
    if (into.friction)
      into.friction[i] +=
          own.slides * answer.normal[i] * (dot(tangent, u.data(), n) + g.friction[i]);
  }
  return residual;
}

}  // namespace deq
