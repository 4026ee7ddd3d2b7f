// Small dense linear algebra whose bits do not depend on the number of threads, which LAPACK does
// not promise.
#pragma once

#include <ATen/core/Tensor.h>

namespace deq::ops {

/// M^-1 of (n, n), or of each of (F, n, n), by Gauss and Jordan's elimination with partial
/// pivoting, in double; of a singular M not finite. On a GPU LibTorch's. Without a tape.
at::Tensor inverse(const at::Tensor& M);

/// |M|, the largest singular value of (n, n), by power iteration: from below, within a few per cent
/// where it does not fall short by more (values close to each other). In double, on the CPU.
double largest_singular_value(const at::Tensor& M);

/// x (R, n) with (I - diag(d) W^T) x = diag(d) b for each row d of D (R, n), b of B (R, n), W (n,
/// n): the equations of d = 0 say x = 0 and are left out. Float and double, contiguous, on the CPU;
/// LU with partial pivoting in their type, each row by itself, alone to the bit. A row whose matrix
/// is singular is not finite.
at::Tensor solve_masked(const at::Tensor& W, const at::Tensor& D, const at::Tensor& B);
/// The same by LibTorch's operators, on any device.
at::Tensor solve_masked_reference(const at::Tensor& W, const at::Tensor& D, const at::Tensor& B);

}  // namespace deq::ops
