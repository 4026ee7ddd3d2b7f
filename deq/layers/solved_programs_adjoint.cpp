// The transposed systems of solved programs, by the factors that their solves left.
#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "deq/layers/solved_programs.h"
#include "deq/ops/tasks.h"

namespace deq {

using at::Tensor;

void SolvedPrograms::solve(Tensor& gz, Tensor& gnu, Tensor& glam) const {
  const auto [n, p, m] = shape_;
  Report found;
  found.reason = at::full({batch_}, int64_t(Reason::Converged), at::kByte);
  found.residual = at::zeros({batch_}, at::kDouble);
  found.steps = at::zeros({batch_}, at::kLong);
  found.rel_tol = 1e-9;
  const Dependent how =
      degenerate_.kind == Degenerate::Kind::Active ? Dependent::Some : Dependent::LeastNorm;
  std::vector<ops::ReducedRight> rights(static_cast<size_t>(batch_));
  std::vector<uint8_t> known(size_t(batch_), 0);
  for (int64_t i = 0; i < batch_; ++i)
    rights[size_t(i)] = {gz.data_ptr<double>() + i * n, gnu.data_ptr<double>() + i * p,
                         glam.data_ptr<double>() + i * m, 0};
  ops::run_tasks<double>(
      int64_t(kept_.size()), 0,
      [&](int64_t group, double*) {
        const int64_t begin = group * together_, end = std::min(begin + together_, batch_);
        if (smoothed_.empty()) {
          for (const Kept& kept : kept_[size_t(group)]) solve_kept(kept, rights, known);
        }
        for (int64_t i = begin; i < end; ++i) {
          ops::ReducedRight& own = rights[size_t(i)];
          if (!smoothed_.empty() && smoothed_[size_t(i)]) {
            const ScaledVectors& units = pattern_ ? dense_[size_t(i)]->program : vectors(i);
            units.transform(own.z, own.nu, own.lam);
            own.residual = smoothed_[size_t(i)]->solve(own.z, own.nu, own.lam);
            units.transform(own.z, own.nu, own.lam);
          } else if (smoothed_.empty() && pattern_ && !sparse_factors_[size_t(i)].D.empty()) {
            solve_sparse(i, own);
          } else if (smoothed_.empty() && exact_[size_t(i)]) {
            exact_[size_t(i)]->solve_adjoint(how, own);
          } else if (!known[size_t(i)]) {
            std::fill_n(own.z, n, 0.0);
            std::fill_n(own.nu, p, 0.0);
            std::fill_n(own.lam, m, 0.0);
          }
        }
      },
      pattern_ ? batch_ * 20 * pattern_->conditions.numbers() : batch_ * (n + p + m) * (n + p + m));
  for (int64_t i = 0; i < batch_; ++i) {
    const double residual = rights[size_t(i)].residual;
    found.residual.data_ptr<double>()[i] = residual;
    if (!(residual <= found.rel_tol))
      found.reason.data_ptr<uint8_t>()[i] =
          uint8_t(std::isfinite(residual) ? Reason::MaxSteps : Reason::NonFinite);
  }
  adjoint->set(found);
}

void SolvedPrograms::solve_kept(const Kept& kept, std::vector<ops::ReducedRight>& rights,
                                std::vector<uint8_t>& known) const {
  // Lanes whose sample has no solution there solve for zeros.
  std::vector<double> zeros(size_t(shape_.n + shape_.p + shape_.m));
  std::vector<ops::ReducedRight> right;
  for (const int64_t i : kept.samples) {
    right.push_back(i >= 0 ? rights[size_t(i)]
                           : ops::ReducedRight{zeros.data(), zeros.data() + shape_.n,
                                               zeros.data() + shape_.n + shape_.p, 0});
    if (i >= 0) programs_[size_t(i)].transform(right.back().z, right.back().nu, right.back().lam);
  }
  ops::solve_reduced(kept.factors, int64_t(right.size()), right.data());
  for (size_t k = 0; k < right.size(); ++k) {
    const int64_t i = kept.samples[k];
    if (i < 0) continue;
    programs_[size_t(i)].transform(right[k].z, right[k].nu, right[k].lam);
    rights[size_t(i)].residual = right[k].residual;
    known[size_t(i)] = 1;
  }
}

void SolvedPrograms::solve_sparse(int64_t i, ops::ReducedRight& right) const {
  const ScaledVectors& units = vectors(i);
  units.transform(right.z, right.nu, right.lam);
  SparseSolver(*pattern_).solve_reduced(sparse_matrices(i), units, sparse_factors_[size_t(i)],
                                        right);
  units.transform(right.z, right.nu, right.lam);
}

}  // namespace deq
