// Proofs that a program has no solution, each the solution of a program that always has one.
#pragma once

#include <vector>

#include "deq/layers/scaled_program.h"

namespace deq {

/// y = (nu, lam), lam >= 0, A'nu + G'lam = 0, b'nu + h'lam < 0 (Farkas): no z meets the
/// constraints. The largest entry is 1. Empty where there is none. It is the solution of
///     minimise 1/2 |y|^2 + (b, h)'y  where [A' G'] y = 0, lam >= 0.
std::vector<double> farkas_vector(const ScaledProgram& program, const ops::QuadraticLimits& limits);

/// d with Qd = 0, Ad = 0, Gd <= 0, q'd < 0: the objective falls along it without end. The largest
/// entry is 1. Empty where there is none. It is the solution of
///     minimise 1/2 |d|^2 + q'd  where Qd = 0, Ad = 0, Gd <= 0.
std::vector<double> ray(const ScaledProgram& program, const ops::QuadraticLimits& limits);

/// d with d'Qd < 0, its largest entry 1. Empty where Q has a Cholesky factor but for rounding.
std::vector<double> negative_curvature(const ScaledProgram& program, double share);

}  // namespace deq
