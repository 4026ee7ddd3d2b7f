// One world's contacts as the islands that it falls apart into.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "deq/layers/contact_sample.h"

namespace deq {

/// Velocities that M, a joint or a contact ties together, directly or through others, and the rows
/// that tie them. Each island is solved and judged by itself, so that how large the numbers of one
/// are means nothing for another: what is 0 beside 1e8 in one may be all that there is in the next.
struct ContactIsland {
  std::vector<int32_t> velocities, contacts, joints;  // in order
  ContactFactor factor;
};

/// A world that was solved, for its gradients.
class SolvedIslands {
 public:
  /// Never throws. `warm` may be null. The answer's reason is the worst of any island's, its
  /// residual the largest, its certificate that of the island of the reason; counts are sums.
  /// `differentiable`: whether gradients will be asked for.
  void solve(const ContactShape& shape, const ContactData& data, const ResolveOptions& options,
             const uint8_t* warm, ContactAnswer& answer, bool differentiable);

  /// Whether the world has a solution that can be differentiated.
  bool known() const { return known_; }
  /// Adds the gradients; the largest residual of any island's adjoint system.
  double differentiate(const ContactShape& shape, const ContactData& data,
                       const ContactAnswer& answer, const ContactCotangents& g,
                       const ContactGradients& into) const;

 private:
  void divide(const ContactShape& shape, const ContactData& data);

  std::vector<ContactIsland> islands_;
  bool known_ = false;
};

}  // namespace deq
