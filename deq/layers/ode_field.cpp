#include "deq/layers/ode_field.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/variable.h>

#include <limits>

namespace deq::ode {

using at::Tensor;
using torch::autograd::Edge;
using torch::autograd::edge_list;

Field::Field(OdeFunction f, at::IntArrayRef shape, at::ScalarType type)
    : f_(std::move(f)), shape_(shape.begin(), shape.end()), type_(type) {
  shape_.insert(shape_.begin(), 0);
  for (size_t i = 1; i < shape_.size(); ++i) n_ *= shape_[i];
}

Tensor Field::operator()(const Tensor& t, const Tensor& y, const Tensor& rows) const {
  std::vector<int64_t> shape = shape_;
  shape[0] = y.size(0);
  const bool flat = shape.size() == 2;
  const Tensor state = flat ? y : y.view(shape);
  const uint32_t version = state._version();
  const Tensor value = f_(t, state, rows);
  ++*evaluations_;
  DEQ_CHECK(value.defined(), "f(t, y) is empty; expected [{}]", fmt::join(shape, ", "));
  DEQ_CHECK(value.sizes() == at::IntArrayRef(shape),
            "f(t, y) has shape [{}] for y [{}]; expected one shape (an f with a parameter for each "
            "sample takes `rows` as a third argument)",
            fmt::join(value.sizes(), ", "), fmt::join(shape, ", "));
  DEQ_CHECK(value.scalar_type() == type_, "f(t, y) has type {}; expected that of y, {}",
            c10::toString(value.scalar_type()), c10::toString(type_));
  DEQ_CHECK(state._version() == version, "f wrote to its y; expected an f that leaves it as it is");
  return flat ? value : value.reshape({y.size(0), n_});
}

namespace {

constexpr int64_t kNumbers = int64_t(1) << 22;  // of one evaluation for a Jacobian

/// Where a tape begins that is part of another: not a leaf, which would be an end of that one.
struct Origin : torch::autograd::Node {
  torch::autograd::variable_list apply(torch::autograd::variable_list&&) override { return {}; }
};
void begin_tape(Tensor& t) {
  t = t.detach();
  torch::autograd::set_history(t,
                               std::shared_ptr<Origin>(new Origin(), torch::autograd::deleteNode));
}

/// Columns first .. first + count - 1 of all rows' transposed Jacobians in one evaluation.
void columns(const Field& f, const Tensor& t, const Tensor& y, const Tensor& rows, int64_t first,
             int64_t count, bool taped, std::vector<Tensor>& dy, std::vector<Tensor>& dt) {
  const int64_t b = y.size(0), n = y.size(1);
  const auto repeated = [&](const Tensor& x) {
    std::vector<int64_t> sizes(x.sizes().begin(), x.sizes().end());
    sizes.insert(sizes.begin(), count);
    Tensor many = x.unsqueeze(0).expand(sizes);
    sizes.erase(sizes.begin());
    sizes[0] *= count;
    return many.reshape(sizes);
  };
  Tensor at_y = repeated(taped ? y : y.detach()), at_t = repeated(t.detach());
  if (!at_y.requires_grad()) begin_tape(at_y);
  begin_tape(at_t);
  const Tensor value = f(at_t, at_y, repeated(rows));
  if (!value.requires_grad()) {
    dy.push_back(at::zeros({count, b, n}, y.options()));
    dt.push_back(at::zeros({count, b}, y.options()));
    return;
  }
  const Tensor unit = at::eye(n, y.options().requires_grad(false))
                          .narrow(0, first, count)
                          .unsqueeze(1)
                          .expand({count, b, n})
                          .reshape({count * b, n});
  const auto found =
      torch::autograd::grad({value}, {at_y, at_t}, {unit}, taped, taped, /*allow_unused=*/true);
  dy.push_back(found[0].defined() ? found[0].reshape({count, b, n})
                                  : at::zeros({count, b, n}, y.options()));
  dt.push_back(found[1].defined() ? found[1].reshape({count, b})
                                  : at::zeros({count, b}, y.options()));
}

}  // namespace

OdeFunction::Jacobian Field::jacobian(const Tensor& t, const Tensor& y, const Tensor& rows,
                                      bool taped) const {
  const int64_t b = y.size(0), n = n_;
  if (f_.jacobian()) {
    const c10::AutoGradMode mode(taped);
    std::vector<int64_t> shape = shape_;
    shape[0] = b;
    OdeFunction::Jacobian given = f_.jacobian()(t, y.view(shape), rows);
    DEQ_CHECK(given.y.defined() && given.y.sizes() == at::IntArrayRef({b, n, n}) &&
                  given.y.scalar_type() == type_,
              "the Jacobian of f has shape [{}]; expected [{}, {}, {}] of the type of y",
              given.y.defined() ? fmt::format("{}", fmt::join(given.y.sizes(), ", ")) : "", b, n,
              n);
    if (given.t.defined()) given.t = given.t.reshape({b, n});
    return given;
  }
  if (n == 0) return {at::zeros({b, 0, 0}, y.options()), at::zeros({b, 0}, y.options())};
  const c10::AutoGradMode mode(true);
  const int64_t at_once = std::max<int64_t>(1, kNumbers / std::max<int64_t>(1, b * n));
  std::vector<Tensor> dy, dt;
  for (int64_t first = 0; first < n; first += at_once)
    columns(*this, t, y, rows, first, std::min(at_once, n - first), taped, dy, dt);
  return {at::cat(dy).transpose(0, 1).contiguous(), at::cat(dt).transpose(0, 1).contiguous()};
}

TapedField::TapedField(const Field& field, const edge_list& captured, const AutocastState& autocast,
                       const char* mode)
    : field_(field),
      terminals_(captured),
      autocast_(autocast),
      mode_(mode),
      sums_(captured.size()),
      own_(captured.size(), false) {}

TapedField::Evaluation TapedField::record(
    const Tensor& y, const std::function<std::vector<Tensor>(const Tensor&)>& what) const {
  const c10::AutoGradMode tape(true);
  const AutocastGuard as_before(autocast_);
  const NoCastCache no_cache;
  Evaluation found{y.detach().requires_grad_(true), {}};
  const TapeMark mark;
  found.values = what(found.y);
  for (Tensor& value : found.values) {
    if (!value.requires_grad()) continue;
    value = value.view_as(value);  // a node of its own, even where f returns what it captured
    terminals_.redirect(value, mark, {found.y}, mode_);
  }
  return found;
}

TapedField::Evaluation TapedField::operator()(const Tensor& t, const Tensor& y,
                                              const Tensor& rows) const {
  return record(y, [&](const Tensor& leaf) { return std::vector<Tensor>{field_(t, leaf, rows)}; });
}

void TapedField::spoil() {
  for (size_t i = 0; i < sums_.size(); ++i) {
    const auto& end = terminals_.ends()[i];
    sums_[i] = end.function->input_metadata(end.input_nr).zeros_like();
    sums_[i].fill_(std::numeric_limits<double>::quiet_NaN());
  }
}

Tensor TapedField::pull(const Evaluation& at, const std::vector<Tensor>& u, bool sums) {
  edge_list roots;
  std::vector<Tensor> cotangents;
  for (size_t i = 0; i < u.size(); ++i) {
    if (!at.values[i].requires_grad()) continue;
    roots.push_back(torch::autograd::impl::gradient_edge(at.values[i]));
    cotangents.push_back(u[i]);
  }
  if (roots.empty()) return at::zeros_like(at.y);
  edge_list ends{torch::autograd::impl::gradient_edge(at.y)};
  if (sums) ends.insert(ends.end(), terminals_.ends().begin(), terminals_.ends().end());
  auto found = torch::autograd::Engine::get_default_engine().execute(
      roots, cotangents, /*keep_graph=*/false, /*create_graph=*/false, /*accumulate_grad=*/false,
      ends);
  for (size_t i = 0; sums && i < sums_.size(); ++i) {
    if (!found[i + 1].defined()) continue;
    if (!sums_[i].defined()) {
      sums_[i] = found[i + 1];
    } else if (own_[i]) {
      sums_[i].add_(found[i + 1]);
    } else {
      sums_[i] = sums_[i] + found[i + 1];  // what the engine gave may be anybody's
      own_[i] = true;
    }
  }
  return found[0].defined() ? found[0].contiguous() : at::zeros_like(at.y);
}

}  // namespace deq::ode
