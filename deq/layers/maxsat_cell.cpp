#include "deq/layers/maxsat_cell.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GradMode.h>

#include <cmath>

namespace deq {

using at::Tensor;

namespace {

double deviation(const MaxsatOptions& o) {
  return std::sqrt(0.5 / double(1 + o.variables + o.auxiliary + o.clauses));
}

MaxsatSolve solve_options(const ConditionOptions& how, int64_t memory) {
  return {.stop = how.stop, .adjoint = how.adjoint, .memory = memory};
}

/// A share of the loss of guessing between two symbols that is no better.
constexpr double kNoBetter = 0.98;

/// Of samples that converged without a step.
Report found_at_once(int64_t batch, const StopRule& stop) {
  Report report;
  report.reason = at::full({batch}, int64_t(Reason::Converged), at::kByte);
  report.residual = at::zeros({batch}, at::kDouble);
  report.steps = at::zeros({batch}, at::kLong);
  report.max_steps = stop.max_steps;
  report.rel_tol = stop.rel_tol;
  report.abs_tol = stop.abs_tol;
  return report;
}

/// Adds what the next link says.
void join(Report& chain, const Report& link) {
  const Tensor fine = chain.reason.eq(int64_t(Reason::Converged));
  chain.reason = at::where(fine, link.reason, chain.reason);
  chain.residual = at::maximum(chain.residual, link.residual);  // NaN is the largest
  chain.steps = chain.steps + link.steps;
  chain.evaluations += link.evaluations;
}

}  // namespace

std::shared_ptr<Cell> LearnedClauses::make(const CellPlace& place) const {
  return std::make_shared<MaxsatCell>(*this, place.symbols);
}

std::shared_ptr<Cell> ChainedClauses::make(const CellPlace&) const {
  return std::make_shared<MaxsatChain>(*this);
}

MaxsatCell::MaxsatCell(const LearnedClauses& options, int64_t symbols)
    : options_(options), symbols_(symbols) {
  validate(options, "LearnedClauses");
  DEQ_CHECK(symbols >= 2, "cell = maxsat among {} symbols; expected 2 at least", symbols);
  maxsat_ = register_module(
      "maxsat", std::make_shared<Maxsat>(MaxsatOptions{.variables = options.places * symbols,
                                                       .auxiliary = options.auxiliary,
                                                       .clauses = options.clauses}));
}

void MaxsatCell::initialise(double) {
  c10::AutoGradMode no_tape(false);
  Tensor S = maxsat_->S();
  S.normal_(0, deviation(maxsat_->options()));
}

void MaxsatCell::check_places(int64_t places) const {
  DEQ_CHECK(places == options_.places,
            "cell = maxsat: a problem of {} places; expected cell-places = {}", places,
            options_.places);
}

Equilibrated MaxsatCell::solve(const Tensor& x, const ConditionOptions& how) {
  const Tensor flat = x.flatten(1).to(maxsat_->S().scalar_type());
  DEQ_CHECK(x.size(-1) == symbols_, "cell = maxsat: x of {} symbols; expected {}", x.size(-1),
            symbols_);
  check_places(flat.size(1) / symbols_);
  const auto latest = std::make_shared<std::shared_ptr<LatestReport>>();
  const Tensor S = heard(maxsat_->S(), latest, how.on_adjoint);
  Assignment found =
      maxsat_->assign(S, flat.clamp_min(0), flat.ge(0), solve_options(how, options_.memory));
  *latest = found.latest_adjoint;
  return {found.z.view(x.sizes()), std::move(found.report), found.latest_adjoint};
}

MaxsatChain::MaxsatChain(const ChainedClauses& options) : options_(options) {
  validate(options, "ChainedClauses");
  maxsat_ = register_module(
      "maxsat", std::make_shared<Maxsat>(MaxsatOptions{
                    .variables = 3, .auxiliary = options.auxiliary, .clauses = options.clauses}));
  seed_ = register_buffer("seed", at::zeros({}, at::kLong));
  drawn_ = register_buffer("drawn", at::ones({}, at::kLong));
  steps_ = register_buffer("steps", at::zeros({}, at::kLong));
  losses_ = register_buffer("losses", at::zeros({}, at::kDouble));
}

void MaxsatChain::initialise(double) {
  c10::AutoGradMode no_tape(false);
  Tensor S = maxsat_->S();
  S.normal_(0, deviation(maxsat_->options()));
  seed_.random_(int64_t{1} << 40);
  drawn_.fill_(1);
  steps_.zero_();
  losses_.zero_();
}

Equilibrated MaxsatChain::solve(const Tensor& x, const ConditionOptions& how) {
  DEQ_CHECK(x.dim() == 3 && x.size(1) >= 1 && x.size(2) == 1,
            "cell = maxsat-chain: x of shape [{}]; expected (batch, positions, 1)",
            fmt::join(x.sizes(), ", "));
  const auto latest = std::make_shared<std::shared_ptr<LatestReport>>();
  const Tensor S = heard(maxsat_->S(), latest, how.on_adjoint);
  const MaxsatSolve options = solve_options(how, options_.memory);
  const Tensor known = at::tensor({1, 1, 0}, at::kByte);
  const Tensor bits = x.to(S.scalar_type());
  std::vector<Tensor> z{bits.select(1, 0)};  // (B, 1) each
  Equilibrated chain;
  chain.report = found_at_once(x.size(0), how.stop);
  for (int64_t t = 1; t < x.size(1); ++t) {
    const Tensor bit = bits.select(1, t);
    const Tensor before = z.back().detach().round();
    Assignment link =
        maxsat_->assign(S, at::cat({before, bit, at::zeros_like(bit)}, 1), known, options);
    z.push_back(link.z.narrow(1, 2, 1));
    *latest = chain.latest_adjoint = link.latest_adjoint;
    join(chain.report, link.report);
  }
  chain.z = at::stack(z, 1);
  return chain;
}

void MaxsatChain::check_places(int64_t places) const {
  DEQ_CHECK(places >= 2, "cell = maxsat-chain: a problem of {} places; expected 2 at least",
            places);
}

void MaxsatChain::hear(double loss) {
  if (options_.trial == 0) return;
  const double guessing = std::log(2.0);
  if (!std::isfinite(loss)) loss = guessing;
  c10::AutoGradMode no_tape(false);
  const int64_t steps = steps_.add_(1).item<int64_t>(), judged = (options_.trial + 2) / 3;
  if (steps > options_.trial - judged) losses_.add_(loss / double(judged));
  if (steps < options_.trial) return;
  if (!(losses_.item<double>() < kNoBetter * guessing)) {
    const auto seed = uint64_t(seed_.item<int64_t>() + drawn_.item<int64_t>());
    Tensor S = maxsat_->S();
    S.normal_(0, deviation(maxsat_->options()), at::make_generator<at::CPUGeneratorImpl>(seed));
    drawn_.add_(1);
  }
  steps_.zero_();
  losses_.zero_();
}

}  // namespace deq
