// The contact problem of one world (contact.h) in doubles: solved, and its adjoint.
//
// With R the rows of joints, normals and tangents, A = R M^-1 R' and d = R (v + M^-1 impulse), the
// rows' velocities are w = A lam + d. Those that are held, C, have given velocities, and impulses
// act along B: of a contact that slides Jn + s mu Jt, s = 1 or -1. So S lam = c - d, S = C M^-1 B',
// and with the gradients g of a loss in v+ and in lam,
//
//     S'y = g_lam + B M^-T g_v,   u = M^-T (g_v - C'y),
//     dimpulse = u,  dM = -u (v+ - v)',  dv = M'u - Jn'(e y),  dJe = eta u' - y v+',
//     dJn = lam u' - y (v+ + e v)',  dJt = f u' - y v+',  de = -y (Jn v),  dbias = -y,
//     dmu = s lam (Jt u + g_f) of those that slide.
//
// Numbers are scaled by A's diagonal, so that impulses and velocities both are roots of energies.
#pragma once

#include <cstdint>
#include <vector>

#include "deq/layers/contact.h"
#include "deq/layers/square_factor.h"

namespace deq {

/// n velocities, m contacts, p rows of joints.
struct ContactShape {
  int64_t n = 0, m = 0, p = 0;
};

/// As in Contact; none is null, unless it has no entries.
struct ContactData {
  const double *mass = nullptr, *velocity = nullptr, *impulse = nullptr, *normal = nullptr,
               *tangent = nullptr, *restitution = nullptr, *friction = nullptr, *joint = nullptr,
               *bias = nullptr, *joint_bias = nullptr;
};

/// Written to where there is one: velocity (n), normal, friction, touch (m), joint (p); where there
/// is none, certificate (p + m).
struct ContactAnswer {
  double *velocity = nullptr, *normal = nullptr, *friction = nullptr, *joint = nullptr,
         *certificate = nullptr;
  uint8_t* touch = nullptr;
  Reason reason = Reason::MaxSteps;
  double residual = 0;
  int64_t steps = 0, factorisations = 0, weak = 0, dependent = 0;
};

/// Gradients in the outputs.
struct ContactCotangents {
  const double *velocity = nullptr, *normal = nullptr, *friction = nullptr, *joint = nullptr;
};
/// What gradients in the inputs are added to; null where one is not wanted.
struct ContactGradients {
  double *mass = nullptr, *velocity = nullptr, *impulse = nullptr, *normal = nullptr,
         *tangent = nullptr, *restitution = nullptr, *friction = nullptr, *joint = nullptr,
         *bias = nullptr, *joint_bias = nullptr;
};

/// M = LDU without pivoting, which a positive definite symmetric part allows.
class MassFactor {
 public:
  /// False where a pivot of M or of its symmetric part is not above 1e-13 of what it was before.
  bool factor(const double* M, int64_t n);
  void solve(double* x) const;
  void solve_transposed(double* x) const;

 private:
  void divide(double* x) const;

  int64_t n_ = 0;
  bool diagonal_ = false;
  std::vector<double> LU_;
};

/// How a contact takes part in a system: held or not, whether along its tangent, and s.
struct HeldContact {
  bool normal = false, tangent = false;
  int8_t slides = 0;
  bool operator==(const HeldContact&) const = default;
};

/// u and y of the adjoint system, by velocity and by row of each kind; 0 in rows that are not held.
struct ContactAdjoint {
  std::vector<double> u, normal, tangent, joint;
};

/// What backward needs of a solution.
struct ContactFactor {
  MassFactor mass;
  SquareFactor system;
  std::vector<HeldContact> held;  // by contact
  std::vector<int32_t> rows;      // of the system: joint j, p + contact, p + m + contact
  std::vector<double> scale;      // of these
  bool known = false;

  /// The residual of the adjoint system as a share of its right hand side.
  double solve_adjoint(const ContactShape& shape, const ContactData& data,
                       const ContactCotangents& g, ContactAdjoint& adjoint) const;
};

/// Adds the gradients, which numbers that are 0 have too: of M and of rows between bodies that
/// nothing ties together.
void add_gradients(const ContactShape& shape, const ContactData& data, const ContactAnswer& answer,
                   const std::vector<HeldContact>& held, const ContactAdjoint& adjoint,
                   const ContactCotangents& g, const ContactGradients& into);

/// Never throws. `warm` may be null. What is kept of it may go to `factor`, which may be null.
void solve_contact(const ContactShape& shape, const ContactData& data,
                   const ResolveOptions& options, const uint8_t* warm, ContactAnswer& answer,
                   ContactFactor* factor);

}  // namespace deq
