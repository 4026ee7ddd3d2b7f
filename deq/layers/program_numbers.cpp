#include "deq/layers/program_numbers.h"

#include <ATen/ATen.h>

#include "deq/base/error.h"

namespace deq {

using at::Tensor;

namespace {

struct Named {
  const char* name;
  const Tensor* tensor;
  int64_t own;  ///< dimensions without B
};

void check_type(const Named& input, const Tensor& like) {
  const Tensor& t = *input.tensor;
  DEQ_CHECK(t.layout() == at::kStrided, "{} is sparse; expected a dense tensor", input.name);
  DEQ_CHECK(t.device().is_cpu(),
            "{} is on {}; expected the CPU: quadratic programs have no kernel "
            "for GPUs",
            input.name, t.device().str());
  DEQ_CHECK(t.scalar_type() == at::kFloat || t.scalar_type() == at::kDouble,
            "{} is of type {}; expected float or double", input.name, toString(t.scalar_type()));
  DEQ_CHECK(t.scalar_type() == like.scalar_type(), "{} is of type {}; expected {}, q's", input.name,
            toString(t.scalar_type()), toString(like.scalar_type()));
  DEQ_CHECK(t.dim() == input.own || t.dim() == input.own + 1,
            "{} = [{}]; expected {} dimensions, or {} with a batch", input.name,
            fmt::join(t.sizes(), ", "), input.own, input.own + 1);
}

void check_sizes(const Named& input, int64_t rows, int64_t columns) {
  const Tensor& t = *input.tensor;
  const int64_t last = t.size(-1), before = input.own == 2 ? t.size(-2) : rows;
  DEQ_CHECK(last == columns && before == rows, "{} = [{}]; expected [{}{}{}]", input.name,
            fmt::join(t.sizes(), ", "), t.dim() > input.own ? "B, " : "",
            input.own == 2 ? fmt::format("{}, ", rows) : "", columns);
}

Tensor numbers_of(const Tensor& t) { return t.detach().to(at::kDouble).contiguous(); }

}  // namespace

ProgramNumbers::ProgramNumbers(const QuadraticProgram& given) {
  DEQ_CHECK(given.q.defined(), "q is undefined; expected (n) or (B, n)");
  const std::vector<Named> inputs{{"q", &given.q, 1}, {"Q", &given.Q, 2}, {"A", &given.A, 2},
                                  {"b", &given.b, 1}, {"G", &given.G, 2}, {"h", &given.h, 1}};
  DEQ_CHECK(given.A.defined() == given.b.defined(),
            "{} is undefined; expected A with b, or neither", given.A.defined() ? "b" : "A");
  DEQ_CHECK(given.G.defined() == given.h.defined(),
            "{} is undefined; expected G with h, or neither", given.G.defined() ? "h" : "G");
  for (const Named& input : inputs) {
    if (!input.tensor->defined()) continue;
    check_type(input, given.q);
    if (input.tensor->dim() == input.own) continue;
    const int64_t own = input.tensor->size(0);
    DEQ_CHECK(!batched || own == batch, "{} = [{}]; expected a batch of {}, as before it",
              input.name, fmt::join(input.tensor->sizes(), ", "), batch);
    batch = own;
    batched = true;
  }
  shape.n = given.q.size(-1);
  DEQ_CHECK(shape.n > 0, "q = [{}]; expected at least one variable",
            fmt::join(given.q.sizes(), ", "));
  shape.p = given.A.defined() ? given.A.size(-2) : 0;
  shape.m = given.G.defined() ? given.G.size(-2) : 0;
  for (const Named& input : inputs) {
    if (!input.tensor->defined()) continue;
    const char which = input.name[0];
    const int64_t rows = which == 'Q' || which == 'q'   ? shape.n
                         : which == 'A' || which == 'b' ? shape.p
                                                        : shape.m;
    check_sizes(input, rows, input.own == 2 ? shape.n : rows);
  }
  const auto options = at::TensorOptions(at::kDouble);
  Q = given.Q.defined() ? numbers_of(given.Q) : at::zeros({shape.n, shape.n}, options);
  q = numbers_of(given.q);
  A = given.A.defined() ? numbers_of(given.A) : at::zeros({0, shape.n}, options);
  b = given.b.defined() ? numbers_of(given.b) : at::zeros({0}, options);
  G = given.G.defined() ? numbers_of(given.G) : at::zeros({0, shape.n}, options);
  h = given.h.defined() ? numbers_of(given.h) : at::zeros({0}, options);
}

}  // namespace deq
