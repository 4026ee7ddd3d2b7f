#pragma once

#include "deq/layers/contact_sample.h"

namespace deq {

/// Whether no v+ meets the joints and the gaps; then `certificate` (p + m) says so, as
/// Impact::certificate. By the quadratic program  min (v+ - v)'M(v+ - v) / 2  under both.
bool no_velocity(const ContactShape& shape, const ContactData& data, double* certificate);

}  // namespace deq
