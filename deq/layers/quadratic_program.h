// Quadratic programs as a layer (OptNet: Amos and Kolter, ICML 2017):
//
//     minimise 1/2 z'Qz + q'z   where   Az = b,  Gz <= h
//
// The solution is where, with multipliers nu and lam >= 0,
//
//     Qz + q + A'nu + G'lam = 0,   Az = b,   lam (h - Gz) = 0
//
// Cold, an interior point method finds which rows are active (ops/interior_point-inl.h); then the
// linear system of those rows, K (ops/reduced_kkt-inl.h), gives z, nu and lam to rounding, and with
// the same factor, given the gradients g of a loss in them, K w = g and
//
//     dq = -w_z,  dQ = -(w_z z' + z w_z') / 2,  db = w_nu,  dA = -(nu w_z' + w_nu z'),
//     dh = w_lam, dG = -(lam w_z' + w_lam z')
//
// Warm, the system of the rows given is tried first. What these leave open, because rows depend on
// each other or are weakly active, z is one of many, or there is none, exact_program.h decides, of
// each part that shares no variable with the others by itself (program_blocks.h).
// Sparse ones: sparse_solver.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "deq/gradients/differentiate.h"
#include "deq/layers/degenerate.h"
#include "deq/solvers/report.h"

namespace deq {

/// The data, all of one floating type, on the CPU. Each is (B, ...) or, shared by the batch,
/// without B. Q (n, n), q (n), A (p, n), b (p), G (m, n), h (m). Undefined: Q is 0 (a linear
/// program), no such constraints. Of Q the symmetric part counts, and gradients are symmetric. A
/// row whose h is +infinity, or above 1e50, is none. Numbers below 1e-50 count as 0.
struct QuadraticProgram {
  at::Tensor Q, q, A, b, G, h;
};

/// The numbers of a matrix that are not 0, by rows (CSR): row i has values[k] in columns[k] for
/// row_begin[i] <= k < row_begin[i + 1], in ascending columns. The pattern is that of every sample.
/// Not a tensor of LibTorch's sparse layout: LibTorch 1.13 cannot add two of these without MKL,
/// which gradients that come together must be, and its optimisers take none.
struct SparseMatrix {
  at::Tensor row_begin;  ///< (rows + 1) int64, as crow_indices()
  at::Tensor columns;    ///< (N) int64, as col_indices()
  at::Tensor values;     ///< (N), or (B, N)

  SparseMatrix() = default;
  SparseMatrix(at::Tensor row_begin_, at::Tensor columns_, at::Tensor values_)
      : row_begin(std::move(row_begin_)),
        columns(std::move(columns_)),
        values(std::move(values_)) {}
};

/// The numbers of M (rows, n), or (B, rows, n), that are not 0 in every sample; differentiable in
/// M.
SparseMatrix compressed(const at::Tensor& M);

/// The same program with sparse matrices; q as long as Q, A and G are wide. Those whose values are
/// undefined are as in QuadraticProgram. Where Q's symmetric part counts, (i, j) is half of what
/// stands at (i, j) and (j, i). Gradients are those of the values.
struct SparseProgram {
  SparseMatrix Q;
  at::Tensor q;
  SparseMatrix A;
  at::Tensor b;
  SparseMatrix G;
  at::Tensor h;
};

/// How it is solved, and what its gradient is where that is not unique.
struct MinimiseOptions {
  /// Steps of the interior point; `rel_tol` of the residual below which z is a solution.
  StopRule stop = {.max_steps = 60, .rel_tol = 1e-8};
  Degenerate degenerate = Degenerate::LeastNorm;
  /// `active` of an earlier solution: tried first.
  const at::Tensor* warm = nullptr;
};

/// z (B, n), nu (B, p), lam (B, m), differentiable in all data, any number of times, and how each
/// sample ended; without B where nothing has one. Numbers are finite whatever happened.
struct Optimum {
  at::Tensor z, nu, lam;
  /// A sample each. `Converged`: z, nu and lam are the solution, z the only one. `NotUnique`: z is
  /// that of least norm among many. Else there is none, and z, nu and lam are 0: `Infeasible`,
  /// `Unbounded`, `NotConvex` (Q has negative curvature, along the constraints or not), `NonFinite`
  /// (a number that is not, or is beyond 1e50; h = -infinity); or none was found, `MaxSteps`.
  /// Gradients of all but `Converged` are 0.
  /// `residual`: the largest violation of a condition, each as a share of its own row's terms: of
  /// entry i of Qz + q + A'nu + G'lam, the terms of that sum; of Az - b and Gz - h, the row's terms
  /// and side; of -lam, those of the row's variables. What is large elsewhere excuses nothing, but
  /// for a thousandth of the largest number of the row's block (program_blocks.h), whose rounding
  /// it has. Before rounding to the type; infinite where there is no z. `steps` are the interior
  /// point's; `evaluations`: factorisations, all samples'.
  Report report;
  at::Tensor active;          ///< (B, m) bool, rows that are tight: the next call's warm start
  at::Tensor weak;            ///< (B) int64, how many of them are weakly active
  at::Tensor factorisations;  ///< (B) int64
  /// (B, max(n, p + m)) double, the largest entry 1. Infeasible: y = (nu, lam) with lam >= 0,
  /// A'nu + G'lam = 0, b'nu + h'lam < 0. Unbounded: d (n) with Qd = 0, Ad = 0, Gd <= 0, q'd < 0.
  /// NotConvex: d (n) with d'Qd < 0. Else 0.
  at::Tensor certificate;
  std::shared_ptr<LatestReport> latest_adjoint = {};

  /// Of K w = g in the latest backward pass: its residual by sample; a default Report before.
  Report adjoint() const { return latest_adjoint ? latest_adjoint->get() : Report{}; }
};

/// Never throws for what the numbers are. Throws deq::Error for shapes and types that do not fit.
/// Gradients of shared data are sums over the batch.
Optimum minimise(const QuadraticProgram& program, const MinimiseOptions& options = {});

/// The same answers and gradients by sparse factors (sparse_solver.h), whose order is found once
/// for a pattern. What they leave open is solved with dense matrices, one sample after the other,
/// where n + p + m <= 2,000; a larger one ends with `MaxSteps`.
Optimum minimise(const SparseProgram& program, const MinimiseOptions& options = {});

}  // namespace deq
