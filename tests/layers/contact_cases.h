// Worlds for the tests of contact.
#pragma once

#include "deq/layers/contact.h"
#include "tests/layers/layer_suite.h"

namespace deq::testing {

/// B random worlds of so many bodies in a plane (angle, x, y), contacts with the ground and between
/// bodies, with friction and restitution; with joints, which the velocities before do not meet, two
/// rows between the first two bodies.
Contact random_worlds(int64_t B, int64_t bodies, int64_t contacts, bool joints, uint64_t seed);

/// The inputs by name: those in `shared` of the first sample alone.
LayerCase contact_case(const std::string& name, const Contact& contact,
                       const std::string& shared = "", const ResolveOptions& options = {});

/// The largest violation of a condition by sample, from the data: (B) double. Independent of how
/// it was solved.
at::Tensor violations(const Contact& contact, const Impact& found);

}  // namespace deq::testing
