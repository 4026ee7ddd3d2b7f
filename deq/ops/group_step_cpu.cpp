#include "deq/ops/group_step_cpu.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "deq/ops/group_kernel.h"
#include "deq/ops/packed.h"
#include "deq/ops/tasks.h"
#include "deq/ops/weight_gradient.h"

namespace deq::ops {

using at::Tensor;

namespace {

GroupWeights::Layout layout_of(const GroupContext& c, bool transposed) {
  const auto packed = [&](const Tensor& weight) {
    return packed_weight(weight.detach().contiguous(), transposed);
  };
  GroupWeights::Layout layout{packed(c.own), packed(c.place), packed(c.output), {}};
  for (const Tensor& kind : c.kinds.detach().unbind(0)) layout.kinds.push_back(packed(kind));
  return layout;
}

/// With the weights as `layout` has them.
template <class T>
GroupShape<T> kernel_shape(const GroupContext& c, const GroupWeights& weights,
                           const GroupWeights::Layout& layout) {
  GroupShape<T> shape;
  shape.places = c.injected.size(1);
  shape.symbols = c.injected.size(2);
  shape.width = c.own.size(1);
  shape.inner = c.own.size(0);
  shape.own = layout.own.data_ptr<T>();
  shape.place = layout.place.data_ptr<T>();
  shape.output = layout.output.data_ptr<T>();
  size_t number = 0;
  for (size_t k = 0; k < c.groupings.size(); ++k) {
    for (const Grouping& grouping : c.groupings[k])
      shape.kinds.push_back({grouping.group.data(), weights.shares[number++].data_ptr<T>(),
                             grouping.count, layout.kinds[k].data_ptr<T>()});
  }
  return shape;
}

/// Runs f(sample, scratch) for those of which not all positions are done.
template <class T, class F>
void for_samples(const GroupShape<T>& shape, int64_t samples, const std::vector<char>& done,
                 const F& f) {
  std::vector<int64_t> open;
  for (int64_t b = 0; b < samples; ++b) {
    if (done.empty() || !done[size_t(b)]) open.push_back(b);
  }
  const int64_t work = shape.places * shape.symbols * shape.width * shape.inner * 2;
  run_tasks<T>(
      int64_t(open.size()), shape.scratch(), [&](int64_t i, T* s) { f(open[size_t(i)], s); },
      int64_t(open.size()) * work);
}

template <class T>
T* at_sample(const Tensor& t, int64_t sample) {
  return t.defined() ? t.data_ptr<T>() + sample * (t.numel() / t.size(0)) : nullptr;
}

template <class T>
void forward(const GroupContext& c, const GroupWeights& weights, const Tensor& z,
             const std::vector<char>& done, const GroupKept& to) {
  const auto shape = kernel_shape<T>(c, weights, weights.forward);
  for_samples(shape, z.size(0), done, [&](int64_t b, T* scratch) {
    group_forward(
        shape,
        {at_sample<T>(z, b), at_sample<T>(c.injected, b), at_sample<T>(to.f, b),
         at_sample<T>(to.hidden, b), at_sample<T>(to.scale, b), at_sample<T>(to.means, b)},
        scratch);
  });
}

/// What a backward leaves besides dz, of all samples.
struct Between {
  Tensor injected, output, messages;
};

template <class T>
void backward(const GroupContext& c, const GroupWeights& weights, const GroupKept& kept,
              const Tensor& df, const std::vector<char>& done, const Tensor& dz,
              const Between& to) {
  const auto shape = kernel_shape<T>(c, weights, weights.backward);
  for_samples(shape, df.size(0), done, [&](int64_t b, T* scratch) {
    group_backward(shape,
                   {at_sample<T>(df, b), at_sample<T>(kept.f, b), at_sample<T>(kept.hidden, b),
                    at_sample<T>(kept.scale, b), at_sample<T>(dz, b), at_sample<T>(to.injected, b),
                    at_sample<T>(to.output, b), at_sample<T>(to.messages, b)},
                   scratch);
  });
}

void forward_any(const GroupContext& c, const GroupWeights& weights, const Tensor& z,
                 const std::vector<char>& done, const GroupKept& to) {
  z.scalar_type() == at::kFloat ? forward<float>(c, weights, z, done, to)
                                : forward<double>(c, weights, z, done, to);
}

void backward_any(const GroupContext& c, const GroupWeights& weights, const GroupKept& kept,
                  const Tensor& df, const std::vector<char>& done, const Tensor& dz,
                  const Between& to) {
  df.scalar_type() == at::kFloat ? backward<float>(c, weights, kept, df, done, dz, to)
                                 : backward<double>(c, weights, kept, df, done, dz, to);
}

int64_t messages_of(const GroupContext& c) {
  int64_t count = c.injected.size(1);
  for (const auto& set : c.groupings) {
    for (const Grouping& grouping : set) count += grouping.count * c.injected.size(2);
  }
  return count;
}

/// A tensor for the samples that are open, with the latest of those that are done; which these are.
std::pair<Tensor, std::vector<char>> begin_series(const Tensor& like,
                                                  const std::vector<int64_t>& done,
                                                  GroupSeries& series) {
  std::vector<char> closed(done.size());
  for (size_t b = 0; b < done.size(); ++b) closed[b] = done[b] >= like.size(1);
  const Tensor to = series.pool.empty_like(like);
  const int64_t bytes = like.numel() / like.size(0) * int64_t(like.element_size());
  for (size_t b = 0; b < closed.size(); ++b) {
    if (!closed[b]) continue;
    const auto at = [&](const Tensor& t) {
      return static_cast<char*>(t.data_ptr()) + int64_t(b) * bytes;
    };
    std::copy_n(at(series.latest), bytes, at(to));
  }
  return {to, std::move(closed)};
}

}  // namespace

GroupWeights::GroupWeights(const GroupContext& c)
    : forward(layout_of(c, false)), backward(layout_of(c, true)) {
  for (const auto& set : c.groupings) {
    for (const Grouping& grouping : set) {
      std::vector<double> counts(size_t(grouping.count), 0);
      for (const int64_t group : grouping.group) {
        if (group >= 0) ++counts[size_t(group)];
      }
      shares.push_back(
          at::tensor(counts, at::kDouble).clamp_min(1).reciprocal().to(c.own.scalar_type()));
    }
  }
}

GroupKept group_forward_cpu(const GroupContext& c, const GroupWeights& weights, const Tensor& z,
                            bool taped) {
  const auto options = z.options().requires_grad(false);
  GroupKept kept{.f = at::empty(z.sizes(), options)};
  if (taped) {
    kept.hidden = at::empty(c.injected.sizes(), options);
    kept.scale = at::empty(c.injected.sizes().slice(0, 3), options);
    kept.means = at::empty({z.size(0), messages_of(c), c.own.size(1)}, options);
  }
  forward_any(c, weights, z, {}, kept);
  return kept;
}

Tensor group_resume_cpu(const GroupContext& c, const GroupWeights& weights, const Tensor& z,
                        const std::vector<int64_t>& done, GroupSeries& series) {
  auto [f, closed] = begin_series(z, done, series);
  forward_any(c, weights, z, closed, {.f = f});
  series.latest = f;
  return f;
}

Tensor group_resume_backward_cpu(const GroupContext& c, const GroupWeights& weights,
                                 const GroupKept& kept, const Tensor& df,
                                 const std::vector<int64_t>& done, GroupSeries& series) {
  c10::NoGradGuard no_tape;
  auto [dz, closed] = begin_series(df, done, series);
  backward_any(c, weights, kept, df, closed, dz, {});
  series.latest = dz;
  return dz;
}

GroupGiven group_backward_cpu(const GroupContext& c, const GroupWeights& weights, const Tensor& z,
                              const GroupKept& kept, const Tensor& df, bool all) {
  c10::NoGradGuard no_tape;
  const auto options = df.options().requires_grad(false);
  GroupGiven given;
  given.z = at::empty(df.sizes(), options);
  Between to;
  if (all) {
    to.injected = at::empty(c.injected.sizes(), options);
    to.output = at::empty(df.sizes(), options);
    to.messages = at::empty({df.size(0), messages_of(c), c.own.size(0)}, options);
  }
  backward_any(c, weights, kept, df, {}, given.z, to);
  if (!all) return given;
  const int64_t I = c.own.size(0), w = c.own.size(1), P = c.injected.size(1),
                S = c.injected.size(2);
  const auto rows = [](const Tensor& t, int64_t numbers) { return t.reshape({-1, numbers}); };
  given.injected = to.injected;
  given.own = weight_gradient(rows(to.injected, I), rows(z, w));
  given.output = weight_gradient(rows(to.output, w), rows(kept.hidden, I));
  int64_t row = 0;
  const auto heard = [&](int64_t count) {  // the gradient of the weight of the next messages
    const Tensor dy = to.messages.narrow(1, row, count), x = kept.means.narrow(1, row, count);
    row += count;
    return weight_gradient(rows(dy, I).contiguous(), rows(x, w).contiguous());
  };
  given.place = heard(P);
  given.kinds = at::zeros(c.kinds.sizes(), options);
  for (size_t k = 0; k < c.groupings.size(); ++k) {
    for (const Grouping& grouping : c.groupings[k])
      given.kinds[int64_t(k)] += heard(grouping.count * S);
  }
  return given;
}

}  // namespace deq::ops
