#include "deq/layers/maxsat_samples.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "deq/layers/maxsat_sample.h"
#include "deq/ops/tasks.h"
#include "deq/ops/weight_gradient.h"

namespace deq {
namespace {

using at::Tensor;

/// Samples that one thread takes together: small ones share what is made for their free set.
template <class T>
int64_t chunk_of(const MaxsatShared<T>& shared) {
  return shared.N <= 64 ? 16 : 1;
}

/// f(sample, b) for all samples, over the threads.
template <class T, class F>
void for_each_sample(const MaxsatShared<T>& shared, int64_t batch, const F& f) {
  const int64_t chunk = chunk_of(shared);
  ops::run_tasks<T>((batch + chunk - 1) / chunk, shared.scratch(), [&](int64_t task, T* scratch) {
    MaxsatSample<T> sample(shared, scratch);
    for (int64_t b = task * chunk; b < std::min(batch, (task + 1) * chunk); ++b) f(sample, b);
  });
}

/// Rows of a report, filled by several threads.
struct Rows {
  Report report;
  uint8_t* reason;
  double* residual;
  int64_t* steps;

  Rows(int64_t batch, const StopRule& stop) {
    report.reason = at::empty({batch}, at::kByte);
    report.residual = at::zeros({batch}, at::kDouble);
    report.steps = at::zeros({batch}, at::kLong);
    report.max_steps = stop.max_steps;
    report.rel_tol = stop.rel_tol;
    report.abs_tol = stop.abs_tol;
    reason = report.reason.data_ptr<uint8_t>();
    residual = report.residual.data_ptr<double>();
    steps = report.steps.data_ptr<int64_t>();
  }
  void set(int64_t b, const SampleEnd& end) {
    reason[b] = uint8_t(end.reason);
    residual[b] = end.residual;
    steps[b] = end.steps;
  }
  Report take() {
    report.evaluations = report.steps.numel() ? report.steps.max().item<int64_t>() : 0;
    return std::move(report);
  }
};

template <class T>
MaxsatFound forward(const MaxsatCall& call) {
  MaxsatShared<T> shared(call);
  const int64_t B = call.z.size(0), N = shared.N, k = shared.k;
  const auto type = call.C.options();
  MaxsatFound found;
  found.finite = shared.look_at_C();
  found.scale = shared.scale;
  found.z = at::full({B, shared.n}, 0.5, type);
  found.vectors = at::zeros({B, N, k}, type);
  found.norms = at::zeros({B, N}, type);
  found.objective = at::zeros({B}, at::kDouble);
  Rows rows(B, call.how.stop);
  for_each_sample<T>(shared, B, [&](MaxsatSample<T>& sample, int64_t b) {
    if (!sample.take(b) || !found.finite) return rows.set(b, kNotFinite);
    rows.set(b, sample.forward(
                    found.z.data_ptr<T>() + b * shared.n, found.vectors.data_ptr<T>() + b * N * k,
                    found.norms.data_ptr<T>() + b * N, found.objective.data_ptr<double>() + b));
  });
  found.report = rows.take();
  return found;
}

/// (B, k, 1 + N), with truth; 0 for free variables that stand in no clause, whose place means
/// nothing.
template <class T>
Tensor all_vectors(const MaxsatShared<T>& shared, const Tensor& vectors) {
  const int64_t B = vectors.size(0), N = shared.N;
  const Tensor v = at::zeros({B, shared.k, N + 1}, vectors.options());
  v.narrow(2, 1, N).copy_(vectors.transpose(1, 2));
  v.select(1, 0).select(1, 0).fill_(1);
  for (int64_t i = 1; i <= N; ++i) {
    if (shared.coupling(i, i) != T(0)) continue;
    const Tensor own = v.select(2, i);
    if (i > shared.n) {
      own.zero_();
    } else {
      own.mul_(shared.call.known.select(1, i - 1).unsqueeze(1));
    }
  }
  return v;
}

template <class T>
MaxsatGradients backward(const MaxsatCall& call, const MaxsatFound& found, const Tensor& dz,
                         bool want_C, bool want_z) {
  MaxsatShared<T> shared(call);
  shared.look_at_C();
  const int64_t B = call.z.size(0), N = shared.N, k = shared.k;
  const Tensor y = at::zeros({B, k, N + 1}, call.C.options());
  const Tensor passed = dz.clone();
  Rows rows(B, call.how.adjoint);
  const uint8_t* reasons = found.report.reason.data_ptr<uint8_t>();
  for_each_sample<T>(shared, B, [&](MaxsatSample<T>& sample, int64_t b) {
    const Reason reason = found.finite ? Reason(reasons[b]) : Reason::NonFinite;
    if (reason != Reason::NonFinite) sample.take(b);
    rows.set(
        b, sample.backward(found.vectors.data_ptr<T>() + b * N * k,
                           found.norms.data_ptr<T>() + b * N, reason, want_z,
                           passed.data_ptr<T>() + b * shared.n, y.data_ptr<T>() + b * k * (N + 1)));
  });
  MaxsatGradients gradients;
  gradients.report = rows.take();
  if (want_z) gradients.z = passed;
  if (!want_C) return gradients;
  const Tensor v = all_vectors<T>(shared, found.vectors);
  gradients.C = ops::weight_gradient(y.view({B * k, N + 1}), v.view({B * k, N + 1})).neg_();
  return gradients;
}

}  // namespace

MaxsatFound maxsat_forward(const MaxsatCall& call) {
  return call.C.scalar_type() == at::kFloat ? forward<float>(call) : forward<double>(call);
}

MaxsatGradients maxsat_backward(const MaxsatCall& call, const MaxsatFound& found, const Tensor& dz,
                                bool want_C, bool want_z) {
  return call.C.scalar_type() == at::kFloat ? backward<float>(call, found, dz, want_C, want_z)
                                            : backward<double>(call, found, dz, want_C, want_z);
}

}  // namespace deq
