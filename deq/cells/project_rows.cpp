#include "deq/cells/project_rows.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "deq/base/error.h"

namespace deq {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

/// How far the sum of a row of k numbers within kappa may come out above it.
template <class T>
double slack(int64_t k) {
  return 1 + double(k + 4) * double(std::numeric_limits<T>::epsilon());
}

/// The projection of a row of k numbers, in place; whether it was outside. `distances` is memory.
template <class T>
bool project(T* row, int64_t k, double kappa, std::vector<double>& distances) {
  double sum = 0, largest = 0;
  for (int64_t j = 0; j < k; ++j) {
    sum += std::abs(double(row[j]));
    largest = std::max(largest, std::abs(double(row[j])));
  }
  if (sum <= kappa * slack<T>(k)) return false;
  distances.clear();
  for (int64_t j = 0; j < k; ++j) {
    const double distance = largest - std::abs(double(row[j]));
    if (distance < kappa) distances.push_back(distance);  // others are zero in any case
  }
  std::sort(distances.begin(), distances.end());
  // With the s nearest on the face, each is kappa / s plus how much nearer than their mean it is.
  double height = kappa, total = 0;
  for (size_t s = 0; s < distances.size(); ++s) {
    total += distances[s];
    const double now = (kappa + total) / double(s + 1);
    if (!(now > distances[s])) break;
    height = now;
  }
  for (int64_t j = 0; j < k; ++j) {
    const double left = height - (largest - std::abs(double(row[j])));
    row[j] = left > 0 ? std::copysign(T(left), row[j]) : T(0);
  }
  return true;
}

/// Projects every row of `out`; (n) flags of those that were outside.
template <class T>
Tensor project_all(const Tensor& out, double kappa) {
  const int64_t n = out.size(0), k = out.size(1);
  const Tensor outside = at::zeros({n}, at::kBool);
  std::vector<double> distances;
  for (int64_t i = 0; i < n; ++i)
    outside.data_ptr<bool>()[i] = project(out.data_ptr<T>() + i * k, k, kappa, distances);
  return outside;
}

struct Projection : torch::autograd::Function<Projection> {
  static Tensor forward(AutogradContext* context, const Tensor& A, double kappa) {
    const Tensor out = A.detach().to(at::kCPU).clone(at::MemoryFormat::Contiguous);
    const Tensor outside = A.scalar_type() == at::kFloat ? project_all<float>(out, kappa)
                                                         : project_all<double>(out, kappa);
    context->save_for_backward({outside.to(A.device()), out.sign().to(A.device())});
    return out.to(A.device());
  }
  static variable_list backward(AutogradContext* context, variable_list gradients) {
    if (!gradients[0].defined()) return variable_list(2);
    const variable_list saved = context->get_saved_variables();
    const Tensor &g = gradients[0], outside = saved[0].unsqueeze(1), sign = saved[1];
    const Tensor face = sign.abs(), count = face.sum(1, true).clamp_min(1);
    const Tensor along = (sign * g).sum(1, true) / count;
    return {at::where(outside, face * g - sign * along, g), {}};
  }
};

void check(const Tensor& A, double kappa) {
  DEQ_CHECK(kappa > 0 && std::isfinite(kappa), "project_rows_l1: kappa = {}; expected above 0",
            kappa);
  DEQ_CHECK(A.defined() && A.dim() == 2 &&
                (A.scalar_type() == at::kFloat || A.scalar_type() == at::kDouble),
            "project_rows_l1: A is {}; expected (n, k) of float or double",
            A.defined() ? fmt::format("[{}] of {}", fmt::join(A.sizes(), ", "),
                                      c10::toString(A.scalar_type()))
                        : "undefined");
  const Tensor finite = A.detach().isfinite().all(1).to(at::kCPU);
  for (int64_t i = 0; i < finite.size(0); ++i)
    DEQ_CHECK(finite.data_ptr<bool>()[i],
              "project_rows_l1: row {} of A holds NaN or infinity; expected finite numbers", i);
}

}  // namespace

Tensor project_rows_l1(const Tensor& A, double kappa) {
  check(A, kappa);
  return Projection::apply(A, kappa);
}

Tensor project_rows_l1(const Tensor& A, double kappa, const Tensor& weights) {
  DEQ_CHECK(weights.sizes() == A.sizes() && weights.gt(0).all().item<bool>(),
            "project_rows_l1: weights of shape [{}]; expected [{}], all above 0",
            fmt::join(weights.sizes(), ", "), fmt::join(A.sizes(), ", "));
  return project_rows_l1(A * weights, kappa) / weights;
}

}  // namespace deq
