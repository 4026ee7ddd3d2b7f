#include "deq/layers/program_cell.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/types.h>

#include "deq/layers/quadratic_program.h"

namespace deq {

using at::Tensor;

std::shared_ptr<Cell> LearnedProgram::make(const CellPlace& place) const {
  return std::make_shared<ProgramCell>(*this, place.symbols);
}

ProgramCell::ProgramCell(const LearnedProgram& options, int64_t symbols)
    : options_(options), symbols_(symbols) {
  validate(options, "LearnedProgram");
  DEQ_CHECK(symbols >= 2, "cell = optnet among {} symbols; expected 2 at least", symbols);
  const int64_t n = options.places * symbols;
  DEQ_CHECK(options.equalities < n,
            "cell-equalities = {} for {} numbers, of {} places and {} symbols; expected fewer",
            options.equalities, n, options.places, symbols);
  A_ = register_parameter("A", torch::zeros({options.equalities, n}));
  r_ = register_parameter("r", torch::zeros({n}));
  initialise(0);
}

void ProgramCell::initialise(double) {
  c10::AutoGradMode no_tape(false);
  A_.uniform_(0, 1);
  r_.zero_();
}

void ProgramCell::check_places(int64_t places) const {
  DEQ_CHECK(places == options_.places,
            "cell = optnet: a problem of {} places; expected cell-places = {}", places,
            options_.places);
}

Equilibrated ProgramCell::solve(const Tensor& x, const ConditionOptions& how) {
  const Tensor flat = x.flatten(1).to(A_.scalar_type());
  DEQ_CHECK(x.size(-1) == symbols_, "cell = optnet: x of {} symbols; expected {}", x.size(-1),
            symbols_);
  check_places(flat.size(1) / symbols_);
  const auto latest = std::make_shared<std::shared_ptr<LatestReport>>();
  const Tensor A = heard(A_, latest, how.on_adjoint);
  const int64_t n = flat.size(1);
  const Tensor eye = at::eye(n, flat.options());
  Optimum found = minimise({.Q = options_.penalty * eye,
                            .q = -flat.clamp_min(0),
                            .A = A,
                            .b = at::mv(A, r_.exp()),
                            .G = -eye,
                            .h = at::zeros({n}, flat.options())},
                           {.stop = how.stop});
  *latest = found.latest_adjoint;
  return {found.z.view(x.sizes()), std::move(found.report), found.latest_adjoint};
}

}  // namespace deq
