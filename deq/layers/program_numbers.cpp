#include "deq/layers/program_numbers.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "deq/base/error.h"

namespace deq {

using at::Tensor;

struct ProgramNumbers::Input {
  const char* name;
  const Tensor* tensor;
  int64_t own;  ///< dimensions without B
};

namespace {

using Named = ProgramNumbers::Input;

void check_type(const Named& input, const Tensor& like) {
  const Tensor& t = *input.tensor;
  DEQ_CHECK(t.layout() == at::kStrided,
            "{} is of a sparse layout; expected a dense tensor, or a SparseProgram", input.name);
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

std::vector<int64_t> indices(const std::string& name, const Tensor& t) {
  DEQ_CHECK(t.defined() && t.dim() == 1 && t.layout() == at::kStrided && t.device().is_cpu() &&
                (t.scalar_type() == at::kLong || t.scalar_type() == at::kInt),
            "{} is {}; expected one dimension of int64 on the CPU", name,
            t.defined()
                ? fmt::format("[{}] of {}", fmt::join(t.sizes(), ", "), toString(t.scalar_type()))
                : "undefined");
  const Tensor whole = t.to(at::kLong).contiguous();
  return {whole.data_ptr<int64_t>(), whole.data_ptr<int64_t>() + whole.numel()};
}

RowPattern pattern_of(const std::string& name, const SparseMatrix& M, int64_t n) {
  if (!M.values.defined()) {
    DEQ_CHECK(!M.row_begin.defined() && !M.columns.defined(),
              "{}.values is undefined; expected them with {}.row_begin and columns, or none", name,
              name);
    return {std::vector<int64_t>(name == "Q" ? size_t(n + 1) : 1, 0), {}};
  }
  RowPattern found{indices(name + ".row_begin", M.row_begin),
                   indices(name + ".columns", M.columns)};
  const int64_t N = found.numbers();
  DEQ_CHECK(!found.begin.empty() && found.begin.front() == 0 && found.begin.back() == N &&
                std::ranges::is_sorted(found.begin),
            "{}.row_begin = [{}]; expected ascending numbers from 0 to {}, as many as columns",
            name, fmt::join(M.row_begin.sizes(), ", "), N);
  DEQ_CHECK(name != "Q" || found.rows() == n, "Q has {} rows; expected {}, q's length",
            found.rows(), n);
  for (int64_t i = 0; i < found.rows(); ++i) {
    for (int64_t k = found.begin[size_t(i)]; k < found.begin[size_t(i) + 1]; ++k) {
      const int64_t j = found.column[size_t(k)];
      DEQ_CHECK(j >= 0 && j < n, "{}.columns[{}] = {}; expected 0 to {}", name, k, j, n - 1);
      DEQ_CHECK(k == found.begin[size_t(i)] || found.column[size_t(k) - 1] < j,
                "{}.columns[{}] = {} behind {}; expected ascending columns in a row", name, k, j,
                found.column[size_t(k) - 1]);
    }
  }
  DEQ_CHECK(M.values.size(-1) == N, "{}.values = [{}]; expected [{}{}], as many as columns", name,
            fmt::join(M.values.sizes(), ", "), M.values.dim() > 1 ? "B, " : "", N);
  return found;
}

}  // namespace

void ProgramNumbers::take_batch(const Input& input) {
  if (input.tensor->dim() == input.own) return;
  const int64_t own = input.tensor->size(0);
  DEQ_CHECK(!batched || own == batch, "{} = [{}]; expected a batch of {}, as before it", input.name,
            fmt::join(input.tensor->sizes(), ", "), batch);
  batch = own;
  batched = true;
}

const double* ProgramNumbers::of_sample(const Tensor& t, int64_t own, int64_t i) {
  const double* const data = t.data_ptr<double>();
  return t.dim() > own ? data + i * t.stride(0) : data;
}

std::vector<double> ProgramNumbers::dense_matrices(int64_t i) const {
  const auto [n, p, m] = shape;
  std::vector<double> all(size_t((n + p + m) * n), 0.0);
  double* to = all.data();
  const auto fill = [&](const RowPattern& M, const Tensor& values) {
    const double* const own = of_sample(values, 1, i);
    for (int64_t row = 0; row < M.rows(); ++row, to += n)
      for (int64_t k = M.begin[size_t(row)]; k < M.begin[size_t(row) + 1]; ++k)
        to[M.column[size_t(k)]] = own[k];
  };
  fill(pattern->Q, Q);
  fill(pattern->A, A);
  fill(pattern->G, G);
  return all;
}

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
    take_batch(input);
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

ProgramNumbers::ProgramNumbers(const SparseProgram& given) {
  DEQ_CHECK(given.q.defined(), "q is undefined; expected (n) or (B, n)");
  DEQ_CHECK(given.A.values.defined() == given.b.defined(),
            "{} is undefined; expected A with b, or neither",
            given.A.values.defined() ? "b" : "A.values");
  DEQ_CHECK(given.G.values.defined() == given.h.defined(),
            "{} is undefined; expected G with h, or neither",
            given.G.values.defined() ? "h" : "G.values");
  for (const Input& input : {Input{"q", &given.q, 1}, Input{"Q.values", &given.Q.values, 1},
                             Input{"A.values", &given.A.values, 1}, Input{"b", &given.b, 1},
                             Input{"G.values", &given.G.values, 1}, Input{"h", &given.h, 1}}) {
    if (!input.tensor->defined()) continue;
    check_type(input, given.q);
    take_batch(input);
  }
  const int64_t n = given.q.size(-1);
  DEQ_CHECK(n > 0 && n < int64_t(1) << 30, "q = [{}]; expected at least one variable",
            fmt::join(given.q.sizes(), ", "));
  pattern = sparse_pattern(pattern_of("Q", given.Q, n), pattern_of("A", given.A, n),
                           pattern_of("G", given.G, n));
  shape = pattern->shape;
  if (given.b.defined()) check_sizes({"b", &given.b, 1}, shape.p, shape.p);
  if (given.h.defined()) check_sizes({"h", &given.h, 1}, shape.m, shape.m);
  const auto or_none = [](const Tensor& t) {
    return t.defined() ? numbers_of(t) : at::zeros({0}, at::kDouble);
  };
  Q = or_none(given.Q.values);
  q = numbers_of(given.q);
  A = or_none(given.A.values);
  b = or_none(given.b);
  G = or_none(given.G.values);
  h = or_none(given.h);
}

SparseMatrix compressed(const Tensor& M) {
  DEQ_CHECK(M.defined() && M.layout() == at::kStrided && (M.dim() == 2 || M.dim() == 3),
            "M = {}; expected a dense (rows, n) or (B, rows, n)",
            M.defined() ? fmt::format("[{}]", fmt::join(M.sizes(), ", ")) : "undefined");
  const Tensor some = M.detach().ne(0);
  const Tensor places = (M.dim() == 3 ? some.any(0) : some).nonzero();  // NaN is not 0
  const Tensor rows = places.select(1, 0), columns = places.select(1, 1).contiguous();
  const Tensor begin = at::zeros({M.size(-2) + 1}, at::kLong);
  begin.narrow(0, 1, M.size(-2)).copy_(at::bincount(rows, {}, M.size(-2)).cumsum(0));
  return {begin, columns, M.flatten(-2).index_select(-1, rows * M.size(-1) + columns)};
}

}  // namespace deq
