// An explicit method made reversible (McCallum and Foster, "Efficient, accurate and stable
// gradients for neural ODEs", 2024): two states y and z, c the coupling, Psi the increment,
//
//     y' = c y + (1 - c) z + Psi_h(t, z),     z' = z - Psi_{-h}(t + h, y')
//
// so that backward finds each step's beginning from its end and keeps no states.
#pragma once

#include <memory>

#include "deq/layers/ode_discrete.h"
#include "deq/layers/ode_driver.h"

namespace deq::ode {

/// f of a state [y, z], for the first step's size.
Field doubled(const OdeFunction& f, at::IntArrayRef shape, at::ScalarType type);

/// The step of [y, z] (B, 2n); ends at each time that is asked for.
std::unique_ptr<Stepper> reversible_stepper(const Tableau& tableau, const Field& f,
                                            const ops::Allowance& allowed, double coupling,
                                            int64_t fixed);

/// Back from the last states (B, 2n).
std::unique_ptr<Adjoint> reversible_adjoint(const Tableau& tableau, double coupling, Record record,
                                            const at::Tensor& last);

}  // namespace deq::ode
