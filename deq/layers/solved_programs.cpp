#include "deq/layers/solved_programs.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "deq/base/error.h"
#include "deq/layers/dense_vector.h"
#include "deq/ops/tasks.h"

namespace deq {

using at::Tensor;
using ops::Found;

namespace {

constexpr int64_t kLargestMadeDense = 2000;

}  // namespace

SolvedPrograms::SolvedPrograms(const ProgramNumbers& numbers, const MinimiseOptions& options,
                               double precision, bool keep)
    : shape_(numbers.shape),
      batch_(numbers.batch),
      together_(numbers.pattern ? 1 : ops::samples_at_once(numbers.shape)),
      most_(precision > std::numeric_limits<double>::epsilon()
                ? std::numeric_limits<float>::max()
                : std::numeric_limits<double>::max()),
      keep_(keep),
      degenerate_(options.degenerate),
      pattern_(numbers.pattern) {
  const auto [n, p, m] = shape_;
  const auto real = at::TensorOptions(at::kDouble), whole = at::TensorOptions(at::kLong);
  z = at::zeros({batch_, n}, real);
  nu = at::zeros({batch_, p}, real);
  lam = at::zeros({batch_, m}, real);
  certificate = at::zeros({batch_, std::max(n, p + m)}, real);
  active = at::zeros({batch_, m}, at::kBool);
  weak = at::zeros({batch_}, whole);
  factorisations = at::zeros({batch_}, whole);
  report.reason = at::zeros({batch_}, at::kByte);
  report.residual = at::zeros({batch_}, real);
  report.steps = at::zeros({batch_}, whole);
  report.max_steps = options.stop.max_steps;
  report.rel_tol = options.stop.rel_tol;
  if (batch_ == 0) return;

  const int64_t groups = (batch_ + together_ - 1) / together_;
  kept_.resize(size_t(groups));
  exact_.resize(size_t(batch_));
  const bool smooth = keep_ && degenerate_.kind == Degenerate::Kind::Smoothed;
  smoothed_.resize(size_t(smooth ? batch_ : 0));
  at_z = smooth ? at::zeros_like(z) : z;
  at_nu = smooth ? at::zeros_like(nu) : nu;
  at_lam = smooth ? at::zeros_like(lam) : lam;

  ops::QuadraticLimits limits;
  limits.steps = options.stop.max_steps;
  limits.concave = std::max(1e-10, 100 * precision);
  limits.weak = std::max(1e-9, 10 * precision);
  scale(numbers, limits.concave);
  Tensor rows;
  if (options.warm) {
    DEQ_CHECK(options.warm->defined() && options.warm->numel() == batch_ * m,
              "warm = [{}]; expected rows [{}, {}]",
              options.warm->defined() ? fmt::format("{}", fmt::join(options.warm->sizes(), ", "))
                                      : "undefined",
              batch_, m);
    rows = options.warm->to(at::kBool).contiguous();
  }
  const bool* const warm = rows.defined() ? rows.data_ptr<bool>() : nullptr;
  numbers_ = &numbers;
  ops::run_tasks<double>(
      groups, 0, [&](int64_t group, double*) { solve_group(group, limits, warm); },
      pattern_ ? batch_ * 100 * pattern_->conditions.numbers() : batch_ * n * n * (n + p + m));
  numbers_ = nullptr;
  report.evaluations = factorisations.sum().item<int64_t>();
}

void SolvedPrograms::scale(const ProgramNumbers& numbers, double concave) {
  const int64_t own = numbers.matrix_dimensions();
  const bool shared = numbers.Q.dim() == own && numbers.A.dim() == own && numbers.G.dim() == own;
  const int64_t different = shared ? 1 : batch_;
  matrices_.reserve(pattern_ ? 0 : size_t(different));
  sparse_.reserve(pattern_ ? size_t(different) : 0);
  for (int64_t i = 0; i < different; ++i) {
    const double *const Q = numbers.of_sample(numbers.Q, own, i),
                        *const A = numbers.of_sample(numbers.A, own, i),
                        *const G = numbers.of_sample(numbers.G, own, i);
    if (pattern_) {
      sparse_.emplace_back(*pattern_, Q, A, G, concave);
    } else {
      matrices_.emplace_back(shape_, Q, A, G);
    }
  }
  // A barrier is one of all rows.
  const FarRows far =
      degenerate_.kind == Degenerate::Kind::Smoothed ? FarRows::Kept : FarRows::LeftOut;
  for (int64_t i = 0; i < batch_; ++i) {
    const double *const q = numbers.of_sample(numbers.q, 1, i),
                        *const b = numbers.of_sample(numbers.b, 1, i),
                        *const h = numbers.of_sample(numbers.h, 1, i);
    if (pattern_) {
      vectors_.emplace_back(sparse_matrices(i), q, b, h, far);
    } else {
      programs_.emplace_back(matrices_[size_t(shared ? 0 : i)], q, b, h, far);
    }
  }
  if (!pattern_) return;
  sparse_factors_.resize(size_t(batch_));
  dense_.resize(size_t(batch_));
}

SolvedPrograms::Dense::Dense(const ProgramNumbers& numbers, int64_t i, const double* all,
                             FarRows far)
    : matrices(numbers.shape, all, all + numbers.shape.n * numbers.shape.n,
               all + (numbers.shape.n + numbers.shape.p) * numbers.shape.n),
      program(matrices, numbers.of_sample(numbers.q, 1, i), numbers.of_sample(numbers.b, 1, i),
              numbers.of_sample(numbers.h, 1, i), far) {}

const ScaledProgram* SolvedPrograms::program(int64_t i) {
  if (!pattern_) return &programs_[size_t(i)];
  if (shape_.n + shape_.p + shape_.m > kLargestMadeDense) return nullptr;
  std::unique_ptr<Dense>& own = dense_[size_t(i)];
  if (!own)
    own = std::make_unique<Dense>(*numbers_, i, numbers_->dense_matrices(i).data(),
                                  vectors(i).far().empty() ? FarRows::Kept : FarRows::LeftOut);
  return &own->program;
}

bool SolvedPrograms::far_rows_hold(int64_t i) const {
  const auto reason = Reason(report.reason.data_ptr<uint8_t>()[i]);
  if (reason == Reason::Infeasible || reason == Reason::NotConvex || reason == Reason::NonFinite)
    return true;
  if (reason != Reason::Converged && reason != Reason::NotUnique) return false;
  const double *const own = z.data_ptr<double>() + i * shape_.n,
                      *const h = numbers_->of_sample(numbers_->h, 1, i),
                      *const G = numbers_->of_sample(numbers_->G, numbers_->matrix_dimensions(), i);
  for (const int64_t r : vectors(i).far()) {
    double sum = 0;
    if (pattern_) {
      for (int64_t e = pattern_->G.begin[size_t(r)]; e < pattern_->G.begin[size_t(r) + 1]; ++e)
        sum += G[e] * own[pattern_->G.column[size_t(e)]];
    } else {
      sum = dot(G + r * shape_.n, own, shape_.n);
    }
    if (!(sum < 0.5 * h[r])) return false;  // nor is it near: it would be weakly active
  }
  return true;
}

void SolvedPrograms::begin_with_all_rows(int64_t i) {
  const double *const q = numbers_->of_sample(numbers_->q, 1, i),
                      *const b = numbers_->of_sample(numbers_->b, 1, i),
                      *const h = numbers_->of_sample(numbers_->h, 1, i);
  if (pattern_) {
    vectors_[size_t(i)] = ScaledVectors(sparse_matrices(i), q, b, h);
    sparse_factors_[size_t(i)] = {};
    dense_[size_t(i)] = nullptr;
  } else {
    programs_[size_t(i)] = ScaledProgram(programs_[size_t(i)].matrices(), q, b, h);
    for (Kept& kept : kept_[size_t(i / together_)])
      std::ranges::replace(kept.samples, i, int64_t(-1));
  }
  exact_[size_t(i)] = nullptr;
  certificate.select(0, i).zero_();
}

bool SolvedPrograms::through_sparse(int64_t i, const ops::QuadraticLimits& limits) {
  const auto [n, p, m] = shape_;
  SparseSolver solver(*pattern_);
  ops::QuadraticState state;
  state.z = z.data_ptr<double>() + i * n;
  state.nu = nu.data_ptr<double>() + i * p;
  state.lam = lam.data_ptr<double>() + i * m;
  state.active = reinterpret_cast<uint8_t*>(active.data_ptr<bool>() + i * m);
  SparseFactor factor;
  solver.solve(sparse_matrices(i), vectors(i), limits, state, factor);
  report.steps.data_ptr<int64_t>()[i] += state.steps;
  factorisations.data_ptr<int64_t>()[i] += state.factorisations;
  if (state.found != Found::Exact) return false;
  vectors(i).unscale(state.z, state.nu, state.lam);
  const bool fits = finish(i, Reason::Converged, state.residual);
  if (keep_ && fits) sparse_factors_[size_t(i)] = std::move(factor);
  return true;
}

bool SolvedPrograms::finish(int64_t i, Reason reason, double residual) {
  bool fits = true;
  for (const Tensor* t : {&z, &nu, &lam}) {
    const double* const own = t->data_ptr<double>() + i * t->size(1);
    for (int64_t j = 0; j < t->size(1); ++j) fits = fits && std::fabs(own[j]) <= most_;
  }
  if (!fits) {
    for (const Tensor* t : {&z, &nu, &lam})
      std::fill_n(t->data_ptr<double>() + i * t->size(1), t->size(1), 0.0);
    std::fill_n(active.data_ptr<bool>() + i * shape_.m, shape_.m, false);
    weak.data_ptr<int64_t>()[i] = 0;
    reason = Reason::MaxSteps;
    residual = std::numeric_limits<double>::infinity();
  }
  if (reason == Reason::Converged && !(residual <= report.rel_tol)) reason = Reason::MaxSteps;
  report.reason.data_ptr<uint8_t>()[i] = uint8_t(reason);
  report.residual.data_ptr<double>()[i] = residual;
  return fits;
}

void SolvedPrograms::solve_open(int64_t group, std::vector<int64_t> open,
                                const ops::QuadraticLimits& limits) {
  if (open.empty()) return;
  if (!pattern_) {
    open = through_kernels(open, limits, kept_[size_t(group)]);
  } else {
    std::erase_if(open, [&](int64_t i) { return through_sparse(i, limits); });
  }
  if (limits.warm) {
    ops::QuadraticLimits cold = limits;
    cold.warm = false;
    return solve_open(group, std::move(open), cold);
  }
  for (const int64_t i : open) with_all_care(i, limits);
}

void SolvedPrograms::solve_group(int64_t group, const ops::QuadraticLimits& limits,
                                 const bool* warm) {
  const int64_t begin = group * together_, end = std::min(begin + together_, batch_), m = shape_.m;
  std::vector<int64_t> open;
  for (int64_t i = begin; i < end; ++i) {
    if (!vectors(i).finite()) {
      finish(i, Reason::NonFinite, std::numeric_limits<double>::infinity());
      continue;
    }
    open.push_back(i);
  }
  ops::QuadraticLimits first = limits;
  first.warm = warm != nullptr;
  const auto take_rows = [&](int64_t i) {
    if (warm) std::copy_n(warm + i * m, m, active.data_ptr<bool>() + i * m);
  };
  std::ranges::for_each(open, take_rows);
  solve_open(group, open, first);
  for (const int64_t i : open) {
    if (vectors(i).far().empty() || far_rows_hold(i)) continue;
    begin_with_all_rows(i);
    take_rows(i);
    solve_open(group, {i}, first);
  }
  for (int64_t i = begin; i < end && !smoothed_.empty(); ++i) smooth(i);
}

void SolvedPrograms::smooth(int64_t i) {
  if (report.reason.data_ptr<uint8_t>()[i] != uint8_t(Reason::Converged)) return;
  if (!program(i)) return;
  const ScaledProgram& own_program = *program(i);
  std::vector<std::vector<double>> start;
  for (const Tensor* t : {&z, &nu, &lam}) {
    const double* const from = t->data_ptr<double>() + i * t->size(1);
    start.emplace_back(from, from + t->size(1));
  }
  own_program.rescale(start[0].data(), start[1].data(), start[2].data());
  auto own = std::make_unique<SmoothedFactor>(own_program, degenerate_.kappa, std::move(start[0]),
                                              std::move(start[1]), std::move(start[2]));
  if (!own->found) return;
  std::vector<double> at[] = {own->z, own->nu, own->lam};
  own_program.unscale(at[0].data(), at[1].data(), at[2].data());
  std::ranges::copy(at[0], at_z.data_ptr<double>() + i * shape_.n);
  std::ranges::copy(at[1], at_nu.data_ptr<double>() + i * shape_.p);
  std::ranges::copy(at[2], at_lam.data_ptr<double>() + i * shape_.m);
  smoothed_[size_t(i)] = std::move(own);
}

std::vector<int64_t> SolvedPrograms::through_kernels(const std::vector<int64_t>& samples,
                                                     const ops::QuadraticLimits& limits,
                                                     std::vector<Kept>& kept) {
  const auto [n, p, m] = shape_;
  const size_t count = samples.size();
  std::vector<ops::QuadraticData> data(count);
  std::vector<ops::QuadraticState> states(count);
  std::vector<double> slack(count * size_t(m));
  for (size_t k = 0; k < count; ++k) {
    const int64_t i = samples[k];
    data[k] = programs_[size_t(i)].data();
    states[k].z = z.data_ptr<double>() + i * n;
    states[k].nu = nu.data_ptr<double>() + i * p;
    states[k].lam = lam.data_ptr<double>() + i * m;
    states[k].s = slack.data() + k * size_t(m);
    states[k].active = reinterpret_cast<uint8_t*>(active.data_ptr<bool>() + i * m);
  }
  Kept own{samples, {}};
  thread_local ops::ReducedFactors passing;
  ops::solve_quadratic(shape_, data.data(), int64_t(count), limits, states.data(),
                       keep_ ? own.factors : passing);
  std::vector<int64_t> open;
  for (size_t k = 0; k < count; ++k) {
    const int64_t i = samples[k];
    report.steps.data_ptr<int64_t>()[i] += states[k].steps;
    factorisations.data_ptr<int64_t>()[i] += states[k].factorisations;
    if (states[k].found != Found::Exact) {
      open.push_back(i);
      own.samples[k] = -1;
      continue;
    }
    programs_[size_t(i)].unscale(states[k].z, states[k].nu, states[k].lam);
    if (!finish(i, Reason::Converged, states[k].residual)) own.samples[k] = -1;
  }
  if (keep_ && open.size() < count) kept.push_back(std::move(own));
  return open;
}

void SolvedPrograms::with_all_care(int64_t i, const ops::QuadraticLimits& limits) {
  const auto [n, p, m] = shape_;
  if (pattern_ && n + p + m > kLargestMadeDense) {
    finish(i, Reason::MaxSteps, std::numeric_limits<double>::infinity());
    return;
  }
  const std::vector<double> made = pattern_ ? numbers_->dense_matrices(i) : std::vector<double>();
  const auto matrix = [&](const Tensor& own, int64_t rows_before) {
    return pattern_ ? made.data() + rows_before * shape_.n : numbers_->of_sample(own, 2, i);
  };
  const ops::QuadraticData data{matrix(numbers_->Q, 0),     numbers_->of_sample(numbers_->q, 1, i),
                                matrix(numbers_->A, n),     numbers_->of_sample(numbers_->b, 1, i),
                                matrix(numbers_->G, n + p), numbers_->of_sample(numbers_->h, 1, i)};
  auto blocks = std::make_unique<ProgramBlocks>(shape_, data, vectors(i).far());
  const ExactAnswer answer = blocks->solve(limits, degenerate_);
  std::ranges::copy(answer.z, z.data_ptr<double>() + i * n);
  std::ranges::copy(answer.nu, nu.data_ptr<double>() + i * p);
  std::ranges::copy(answer.lam, lam.data_ptr<double>() + i * m);
  std::ranges::copy(answer.active, active.data_ptr<bool>() + i * m);
  std::ranges::copy(answer.certificate, certificate.data_ptr<double>() + i * certificate.size(1));
  weak.data_ptr<int64_t>()[i] = answer.weak;
  report.steps.data_ptr<int64_t>()[i] += answer.steps;
  factorisations.data_ptr<int64_t>()[i] += answer.factorisations;
  const bool fits = finish(i, answer.reason, answer.residual);
  const bool solved = report.reason.data_ptr<uint8_t>()[i] == uint8_t(Reason::Converged);
  if (keep_ && fits && solved && blocks->differentiable()) exact_[size_t(i)] = std::move(blocks);
}

}  // namespace deq
