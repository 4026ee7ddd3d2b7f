#include "deq/ops/stages.h"

#include <ATen/ATen.h>
#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <limits>

namespace deq::ops {

using at::Tensor;

namespace {

constexpr int64_t kGrain = 1 << 14;  // numbers that are worth a thread

/// The stages whose weight is not zero.
template <class T>
struct Used {
  std::vector<const T*> k;
  std::vector<double> weights;

  Used(const Tensor& stages, const std::vector<double>& all) {
    for (size_t j = 0; j < all.size(); ++j) {
      if (all[j] == 0) continue;
      k.push_back(stages.data_ptr<T>() + int64_t(j) * stages.stride(0));
      weights.push_back(all[j]);
    }
  }
  size_t size() const { return k.size(); }

  /// out[i] = base + scale * sum, i < n, at offset `at` of the stages.
  void sum(T* out, const T* y, double scale, int64_t at, int64_t n) const {
    constexpr int64_t kBlock = 64;
    T total[kBlock];
    for (int64_t first = 0; first < n; first += kBlock) {
      const int64_t count = std::min(kBlock, n - first);
      for (int64_t i = 0; i < count; ++i) total[i] = y ? y[first + i] : T(0);
      for (size_t j = 0; j < k.size(); ++j) {
        const T weight = T(scale * weights[j]);
        const T* own = k[j] + at + first;
        for (int64_t i = 0; i < count; ++i) total[i] += weight * own[i];
      }
      for (int64_t i = 0; i < count; ++i) out[first + i] = total[i];
    }
  }
};

template <class Work>
void over_rows(int64_t rows, int64_t n, const Work& work) {
  at::parallel_for(0, rows, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, n)),
                   [&](int64_t first, int64_t last) {
                     for (int64_t r = first; r < last; ++r) work(r);
                   });
}

Tensor column(const std::vector<double>& numbers, int64_t rows, const at::TensorOptions& options) {
  return at::tensor(at::ArrayRef<double>(numbers.data(), size_t(rows)), at::kDouble)
      .to(options)
      .unsqueeze(1);
}

double in_units(double v, double y, double next, double relative, double absolute) {
  const double allowed = absolute + relative * std::max(std::abs(y), std::abs(next));
  return v / std::max(allowed, std::numeric_limits<double>::min());
}

std::vector<double> on_host(const Tensor& norms) {
  const Tensor host = norms.to(at::kCPU, at::kDouble).contiguous();
  return {host.data_ptr<double>(), host.data_ptr<double>() + host.numel()};
}

Tensor norm_reference(const Tensor& v, const Tensor& larger, const Tensor& finite,
                      const Allowance& allowed) {
  const Tensor unit = (allowed.absolute.to(v.device()) + allowed.relative * larger)
                          .clamp_min(std::numeric_limits<double>::min());
  return (v.to(at::kDouble) / unit + 0 * finite.to(at::kDouble)).square().mean(1).sqrt();
}

}  // namespace

Tensor stage_sum_reference(const Tensor& y, const Tensor& k, const std::vector<double>& weights,
                           const std::vector<double>& scale, int64_t rows) {
  const Tensor factor = column(scale, rows, k.options().requires_grad(false));
  Tensor sum = y.defined() ? y.narrow(0, 0, rows) : Tensor();
  for (size_t j = 0; j < weights.size(); ++j) {
    if (weights[j] == 0) continue;
    const Tensor term = factor * weights[j] * k.select(0, int64_t(j)).narrow(0, 0, rows);
    sum = sum.defined() ? sum + term : term;
  }
  return sum.defined() ? sum : at::zeros_like(k.select(0, 0).narrow(0, 0, rows));
}

void stage_sum(const Tensor& out, const Tensor& y, const Tensor& k,
               const std::vector<double>& weights, const std::vector<double>& scale, int64_t rows) {
  const int64_t n = out.size(1);
  if (!out.is_cpu()) {
    out.narrow(0, 0, rows).copy_(stage_sum_reference(y, k, weights, scale, rows));
    return;
  }
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "stage_sum", [&] {
    const Used<scalar_t> used(k, weights);
    scalar_t* to = out.data_ptr<scalar_t>();
    const scalar_t* from = y.defined() ? y.data_ptr<scalar_t>() : nullptr;
    over_rows(rows, n, [&](int64_t r) {
      used.sum(to + r * n, from ? from + r * n : nullptr, scale[size_t(r)], r * n, n);
    });
  });
}

void stage_points(const Tensor& out, const Tensor& y, const Tensor& k,
                  const std::vector<StagePoint>& points, const std::vector<double>& weights) {
  const int64_t n = y.size(1), stages = k.size(0);
  const auto weights_of = [&](size_t p) {
    const auto first = weights.begin() + int64_t(p) * stages;
    return std::vector<double>(first, first + stages);
  };
  if (!out.is_cpu()) {
    const Tensor to = out.view({-1, n});
    for (size_t p = 0; p < points.size(); ++p) {
      const std::vector<double> own = weights_of(p);
      Tensor sum = y[points[p].row].clone();
      for (size_t j = 0; j < own.size(); ++j) {
        if (own[j] != 0) sum.add_(k[int64_t(j)][points[p].row], points[p].scale * own[j]);
      }
      to[points[p].to].copy_(sum);
    }
    return;
  }
  AT_DISPATCH_FLOATING_TYPES(out.scalar_type(), "stage_points", [&] {
    const scalar_t* from = y.data_ptr<scalar_t>();
    const scalar_t* stage = k.data_ptr<scalar_t>();
    scalar_t* to = out.data_ptr<scalar_t>();
    over_rows(int64_t(points.size()), n * stages, [&](int64_t p) {
      const StagePoint& point = points[size_t(p)];
      const double* own = weights.data() + p * stages;
      scalar_t* sum = to + point.to * n;
      for (int64_t i = 0; i < n; ++i) sum[i] = from[point.row * n + i];
      for (int64_t j = 0; j < stages; ++j) {
        const auto weight = scalar_t(point.scale * own[j]);
        if (weight == 0) continue;
        const scalar_t* added = stage + j * k.stride(0) + point.row * n;
        for (int64_t i = 0; i < n; ++i) sum[i] += weight * added[i];
      }
    });
  });
}

void stage_points_transposed(const Tensor& y, const Tensor& k, const Tensor& g,
                             const std::vector<StagePoint>& points,
                             const std::vector<double>& weights) {
  const int64_t n = y.size(1), stages = k.size(0);
  if (!y.is_cpu()) {
    const Tensor from = g.view({-1, n});
    for (size_t p = 0; p < points.size(); ++p) {
      const Tensor own = from[points[p].to];
      y[points[p].row].add_(own);
      for (int64_t j = 0; j < stages; ++j)
        k[j][points[p].row].add_(own, points[p].scale * weights[p * size_t(stages) + size_t(j)]);
    }
    return;
  }
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "stage_points_transposed", [&] {
    scalar_t* state = y.data_ptr<scalar_t>();
    scalar_t* stage = k.data_ptr<scalar_t>();
    const scalar_t* from = g.data_ptr<scalar_t>();
    for (size_t p = 0; p < points.size(); ++p) {
      const StagePoint& point = points[p];
      const scalar_t* own = from + point.to * n;
      scalar_t* to = state + point.row * n;
      for (int64_t i = 0; i < n; ++i) to[i] += own[i];
      for (int64_t j = 0; j < stages; ++j) {
        const auto weight = scalar_t(point.scale * weights[p * size_t(stages) + size_t(j)]);
        if (weight == 0) continue;
        to = stage + j * k.stride(0) + point.row * n;
        for (int64_t i = 0; i < n; ++i) to[i] += weight * own[i];
      }
    }
  });
}

void stage_spread(const Tensor& k, const Tensor& g, const std::vector<double>& weights,
                  const std::vector<double>& scale, int64_t rows) {
  const int64_t n = g.size(1);
  for (size_t j = 0; j < weights.size(); ++j) {
    if (weights[j] == 0) continue;
    if (!k.is_cpu()) {
      k.select(0, int64_t(j))
          .narrow(0, 0, rows)
          .add_(column(scale, rows, k.options()) * weights[j] * g.narrow(0, 0, rows));
      continue;
    }
    AT_DISPATCH_FLOATING_TYPES(k.scalar_type(), "stage_spread", [&] {
      scalar_t* to = k.data_ptr<scalar_t>() + int64_t(j) * k.stride(0);
      const scalar_t* from = g.data_ptr<scalar_t>();
      over_rows(rows, n, [&](int64_t r) {
        const auto weight = scalar_t(scale[size_t(r)] * weights[j]);
        for (int64_t i = r * n; i < (r + 1) * n; ++i) to[i] += weight * from[i];
      });
    });
  }
}

std::vector<double> stage_error_reference(const Tensor& y, const Tensor& next, const Tensor& k,
                                          const std::vector<double>& weights,
                                          const std::vector<double>& scale,
                                          const Allowance& allowed, int64_t rows) {
  const Tensor before = y.narrow(0, 0, rows), after = next.narrow(0, 0, rows);
  return on_host(norm_reference(stage_sum_reference({}, k, weights, scale, rows),
                                at::max(before.abs(), after.abs()), after, allowed));
}

std::vector<double> stage_error(const Tensor& y, const Tensor& next, const Tensor& k,
                                const std::vector<double>& weights,
                                const std::vector<double>& scale, const Allowance& allowed,
                                int64_t rows) {
  if (!y.is_cpu()) return stage_error_reference(y, next, k, weights, scale, allowed, rows);
  const int64_t n = y.size(1);
  std::vector<double> norms(static_cast<size_t>(rows));
  const double* absolute = allowed.absolute.data_ptr<double>();
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "stage_error", [&] {
    const Used<scalar_t> used(k, weights);
    const scalar_t* before = y.data_ptr<scalar_t>();
    const scalar_t* after = next.data_ptr<scalar_t>();
    over_rows(rows, n, [&](int64_t r) {
      constexpr int64_t kBlock = 64;
      scalar_t error[kBlock];
      double sum = 0;
      for (int64_t first = 0; first < n; first += kBlock) {
        const int64_t count = std::min(kBlock, n - first), at = r * n + first;
        used.sum(error, nullptr, scale[size_t(r)], at, count);
        for (int64_t i = 0; i < count; ++i) {
          const double unit = in_units(error[i], before[at + i], after[at + i], allowed.relative,
                                       absolute[first + i]);
          sum += unit * unit + 0 * double(after[at + i]);
        }
      }
      norms[size_t(r)] = std::sqrt(sum / double(std::max<int64_t>(1, n)));
    });
  });
  return norms;
}

std::vector<double> allowed_norm(const Tensor& v, const Tensor& y, const Allowance& allowed,
                                 int64_t rows) {
  const Tensor own = v.narrow(0, 0, rows), state = y.narrow(0, 0, rows);
  if (!v.is_cpu()) return on_host(norm_reference(own, state.abs(), own, allowed));
  const int64_t n = y.size(1);
  std::vector<double> norms(static_cast<size_t>(rows));
  const double* absolute = allowed.absolute.data_ptr<double>();
  AT_DISPATCH_FLOATING_TYPES(y.scalar_type(), "allowed_norm", [&] {
    const scalar_t* numbers = own.data_ptr<scalar_t>();
    const scalar_t* states = state.data_ptr<scalar_t>();
    over_rows(rows, n, [&](int64_t r) {
      double sum = 0;
      for (int64_t i = 0; i < n; ++i) {
        const double size = states[r * n + i];
        const double unit = in_units(numbers[r * n + i], size, size, allowed.relative, absolute[i]);
        sum += unit * unit;
      }
      norms[size_t(r)] = std::sqrt(sum / double(std::max<int64_t>(1, n)));
    });
  });
  return norms;
}

}  // namespace deq::ops
