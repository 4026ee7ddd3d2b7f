// One world as the islands that it falls apart into.
#pragma once

#include <cstdint>
#include <vector>

#include "deq/layers/contact_sample.h"

namespace deq {

/// Velocities that M or a row ties together, directly or through others, and those rows. Each is
/// judged by itself: how fast one moves means nothing for another. Where all is plain they are
/// solved at once; where a contact is weak or a search goes on, one after the other.
struct ContactIsland {
  std::vector<int32_t> numbers, contacts, joints;
};

/// Of each velocity a number from 0 on, its island's. Velocities that no row is of, and rows of
/// zeros, are with the first. Found only where it is asked for.
class ContactIslands {
 public:
  void forget() { known_ = false; }
  bool several(const ContactShape& shape, const ContactData& data) {
    if (!known_) find(shape, data);
    return count_ > 1;
  }
  std::vector<ContactIsland> parts() const;

 private:
  void find(const ContactShape& shape, const ContactData& data);
  /// `first` and all that the row has become one; the first of them.
  int32_t tie(const double* row, int32_t first = -1);
  void join(int32_t set, int32_t first);

  ContactShape shape_;
  std::vector<int32_t> number_, place_;
  std::vector<int32_t> contact_, joint_;  // of rows: the first velocity; -1: zeros
  int32_t sets_ = 0, count_ = 1;
  bool known_ = false;
};

/// What backward needs of a solution.
struct ContactFactor {
  struct Part {
    ContactIsland of;  // nothing, where it is the whole world
    IslandFactor factor;
  };
  std::vector<Part> parts;
  bool known = false;

  /// Adds the gradients; the largest residual of an island's adjoint system, as a share of its
  /// right hand side.
  double differentiate(const ContactShape& shape, const ContactData& data,
                       const ContactAnswer& answer, const ContactCotangents& g,
                       const ContactGradients& into) const;
};

/// Never throws. `warm` may be null. What is kept of it may go to `factor`, which may be null. The
/// reason is the worst of any island's.
void solve_contact(const ContactShape& shape, const ContactData& data,
                   const ResolveOptions& options, const uint8_t* warm, ContactAnswer& answer,
                   ContactFactor* factor);

}  // namespace deq
