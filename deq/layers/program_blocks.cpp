#include "deq/layers/program_blocks.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "deq/layers/dense_vector.h"
#include "deq/layers/joined_sets.h"

namespace deq {

using ops::QuadraticData;
using ops::QuadraticLimits;
using ops::QuadraticShape;

namespace {

bool some(double x) { return !(std::fabs(x) < kSmallestNumber); }

/// The first variable of a row; -1 of a row of zeros.
int64_t first_of(const double* row, int64_t n) {
  for (int64_t j = 0; j < n; ++j)
    if (some(row[j])) return j;
  return -1;
}

/// Which block's reason is the program's.
int rank(Reason reason) {
  constexpr Reason kWorstFirst[] = {Reason::NonFinite, Reason::NotConvex, Reason::Infeasible,
                                    Reason::MaxSteps,  Reason::Unbounded, Reason::NotUnique};
  return int(std::ranges::find(kWorstFirst, reason) - kWorstFirst);
}

bool without_solution(Reason reason) {
  return reason == Reason::NonFinite || reason == Reason::NotConvex ||
         reason == Reason::Infeasible || reason == Reason::Unbounded;
}

/// from[index[k]] to the place k, and back.
std::vector<double> gathered(const double* from, const std::vector<int64_t>& index) {
  std::vector<double> own;
  for (const int64_t i : index) own.push_back(from[i]);
  return own;
}
void scatter(const double* own, const std::vector<int64_t>& index, double* to) {
  for (size_t k = 0; k < index.size(); ++k) to[index[k]] = own[k];
}

}  // namespace

struct ProgramBlocks::Block {
  std::vector<int64_t> variables, equalities, inequalities;
  std::unique_ptr<ScaledMatrices> matrices;
  std::unique_ptr<ScaledProgram> program;
  ExactAnswer answer;

  QuadraticShape shape() const {
    return {int64_t(variables.size()), int64_t(equalities.size()), int64_t(inequalities.size())};
  }
  void solve(const QuadraticLimits& limits, const Degenerate& degenerate) {
    answer = solve_exactly(*program, limits, degenerate);
    program->unscale(answer.z.data(), answer.nu.data(), answer.lam.data());
  }
  /// z, nu and lam to their places.
  void write(ExactAnswer& all) const {
    scatter(answer.z.data(), variables, all.z.data());
    scatter(answer.nu.data(), equalities, all.nu.data());
    scatter(answer.lam.data(), inequalities, all.lam.data());
    for (size_t k = 0; k < inequalities.size(); ++k)
      all.active[size_t(inequalities[k])] = answer.active[k];
  }
  /// The certificate to its places: of variables, or of rows where `rows` says so.
  void certify(bool rows, int64_t p, std::vector<double>& all) const {
    const std::vector<double>& own = answer.certificate;
    if (!rows) return scatter(own.data(), variables, all.data());
    scatter(own.data(), equalities, all.data());
    scatter(own.data() + equalities.size(), inequalities, all.data() + p);
  }
  double solve_adjoint(Dependent how, ops::ReducedRight& right) const;
};

ProgramBlocks::ProgramBlocks(const QuadraticShape& shape, const QuadraticData& data,
                             const std::vector<int64_t>& left_out)
    : shape_(shape) {
  std::vector<uint8_t> present(size_t(shape.m), 1);
  for (const int64_t r : left_out) present[size_t(r)] = 0;
  for (int64_t r = 0; r < shape.m; ++r) present[size_t(r)] &= !(data.h[r] > kLargestNumber);
  divide(data, present);
  for (const auto& block : blocks_) fill(*block, data);
}

/// Which variables and rows each block has; rows of zeros go to the first.
void ProgramBlocks::divide(const QuadraticData& data, const std::vector<uint8_t>& present) {
  const auto [n, p, m] = shape_;
  JoinedSets sets(n);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < i; ++j)
      if (some(0.5 * data.Q[i * n + j] + 0.5 * data.Q[j * n + i])) sets.join(i, j);
  const auto tie = [&, n = n](const double* row) {
    const int64_t first = first_of(row, n);
    for (int64_t j = first + 1; j < n && first >= 0; ++j)
      if (some(row[j])) sets.join(j, first);
  };
  for (int64_t r = 0; r < p; ++r) tie(data.A + r * n);
  for (int64_t r = 0; r < m; ++r)
    if (present[size_t(r)]) tie(data.G + r * n);
  std::vector<Block*> of(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) {
    Block*& own = of[size_t(sets.of(i))];
    if (!own) own = blocks_.emplace_back(std::make_shared<Block>()).get();
    own->variables.push_back(i);
  }
  const auto block_of = [&, n = n](const double* row) {
    return of[size_t(sets.of(std::max<int64_t>(0, first_of(row, n))))];
  };
  for (int64_t r = 0; r < p; ++r) block_of(data.A + r * n)->equalities.push_back(r);
  for (int64_t r = 0; r < m; ++r)
    if (present[size_t(r)]) block_of(data.G + r * n)->inequalities.push_back(r);
}

void ProgramBlocks::fill(Block& block, const QuadraticData& data) const {
  const int64_t n = shape_.n;
  const auto rows = [&](const double* M, const std::vector<int64_t>& index) {
    std::vector<double> own;
    for (const int64_t r : index)
      for (const int64_t j : block.variables) own.push_back(M[r * n + j]);
    return own;
  };
  block.matrices = std::make_unique<ScaledMatrices>(
      block.shape(), rows(data.Q, block.variables).data(), rows(data.A, block.equalities).data(),
      rows(data.G, block.inequalities).data());
  block.program = std::make_unique<ScaledProgram>(
      *block.matrices, gathered(data.q, block.variables).data(),
      gathered(data.b, block.equalities).data(), gathered(data.h, block.inequalities).data());
}

ExactAnswer ProgramBlocks::solve(const QuadraticLimits& limits, const Degenerate& degenerate) {
  const auto [n, p, m] = shape_;
  ExactAnswer all;
  all.z.assign(size_t(n), 0.0);
  all.nu.assign(size_t(p), 0.0);
  all.lam.assign(size_t(m), 0.0);
  all.active.assign(size_t(m), 0);
  all.reason = Reason::Converged;
  const Block* worst = nullptr;
  for (const auto& block : blocks_) {
    block->solve(limits, degenerate);
    const ExactAnswer& own = block->answer;
    all.residual = std::max(all.residual, own.residual);
    all.steps = std::max(all.steps, own.steps);
    all.factorisations += own.factorisations;
    all.weak += own.weak;
    if (rank(own.reason) < rank(all.reason)) all.reason = own.reason, worst = block.get();
  }
  differentiable_ = all.reason == Reason::Converged;
  if (!without_solution(all.reason)) {
    for (const auto& block : blocks_) block->write(all);
    return all;
  }
  all.weak = 0;
  all.residual = std::numeric_limits<double>::infinity();
  const bool rows = all.reason == Reason::Infeasible;
  all.certificate.assign(size_t(rows ? p + m : n), 0.0);
  if (!worst->answer.certificate.empty()) worst->certify(rows, p, all.certificate);
  return all;
}

/// Its part of K w = g; what is left over, as a share of the largest entry of g.
double ProgramBlocks::Block::solve_adjoint(Dependent how, ops::ReducedRight& right) const {
  std::vector<double> z = gathered(right.z, variables), nu = gathered(right.nu, equalities),
                      lam = gathered(right.lam, inequalities), y;
  const int64_t p = int64_t(equalities.size());
  program->transform(z.data(), nu.data(), lam.data());
  const ExactFactor& factor = *answer.factor;
  const auto entry = [&](int64_t r) -> double& {
    return r < p ? nu[size_t(r)] : lam[size_t(r - p)];
  };
  for (const int64_t r : factor.rows()) y.push_back(entry(r));
  const double size = std::max(largest(z), largest(y));
  const double left = factor.solve(z.data(), y.data(), how);
  std::ranges::fill(nu, 0.0);
  std::ranges::fill(lam, 0.0);
  for (size_t j = 0; j < y.size(); ++j) entry(factor.rows()[j]) = y[j];
  program->transform(z.data(), nu.data(), lam.data());
  scatter(z.data(), variables, right.z);
  scatter(nu.data(), equalities, right.nu);
  scatter(lam.data(), inequalities, right.lam);
  return size > 0 ? left / size : 0;
}

void ProgramBlocks::solve_adjoint(Dependent how, ops::ReducedRight& right) const {
  std::vector<uint8_t> has(size_t(shape_.m), 0);
  right.residual = 0;
  for (const auto& block : blocks_) {
    right.residual = std::max(right.residual, block->solve_adjoint(how, right));
    for (const int64_t r : block->inequalities) has[size_t(r)] = 1;
  }
  for (int64_t r = 0; r < shape_.m; ++r)
    if (!has[size_t(r)]) right.lam[r] = 0;
}

}  // namespace deq
