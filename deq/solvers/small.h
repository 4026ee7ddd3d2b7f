// Batches of m x m problems, one per row, that the methods solve for their coefficients. In double.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "deq/base/tensor_pool.h"
#include "deq/solvers/layout.h"

namespace deq::small {

/// Anderson's coefficients: argmin a^T (S + ridge diag(S)) a subject to sum a = 1, for each row.
/// S is the row's own H; in scope causal S_t = sum over the positions s that t depends on (s <= t,
/// or s >= t for Order::Backward) of decay^|t - s| H_s. H (R, M, M) double, contiguous, on the CPU,
/// of which the first m slots are held, symmetric, in the order of time up to a rotation, `newest`
/// the last; returns (R, m) double. Iterates that depend on newer ones get nothing; where nothing
/// is left, the row gets the unit vector `newest`: a Picard step. So do rows that are left out.
struct Mixture {
  int64_t held = 0, newest = 0;  // m
  double ridge = 0, decay = 1;
};
/// A row mixes no more iterates than its age (R, or none: all that is held), the newest ones.
at::Tensor least_mixture(const at::Tensor& H, const Layout& layout, const Mixture& mixture,
                         const std::vector<char>& left_out = {},
                         const std::vector<int64_t>& ages = {}, TensorPool* pool = nullptr);

/// H (R, M, M) with room for `needed` of at most `memory` slots, zero where there was none: it
/// doubles, so that matrices take memory as what they hold does.
at::Tensor with_room(const at::Tensor& H, int64_t rows, int64_t needed, int64_t memory);

/// x with M x = b for each row, or zero where a pivot vanishes or the result is not finite. M (R,
/// m, m), b (R, m), double; x is on b's device. Rows and columns of M begin at `first`, those
/// before it follow the last.
at::Tensor solve_or_zero(const at::Tensor& M, const at::Tensor& b, int64_t first = 0,
                         TensorPool* pool = nullptr);

}  // namespace deq::small
