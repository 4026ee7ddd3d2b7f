#include "deq/ops/transformer_block_cpu.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "deq/ops/packed.h"
#include "deq/ops/tasks.h"
#include "deq/ops/weight_gradient.h"

namespace deq::ops {

using at::Tensor;

PackedBlock::PackedBlock(const BlockWeights& w, WeightType type)
    : weights_{w.qkv.detach(), w.output.detach(), w.inner.detach(), w.outer.detach()},
      unchanged_({{"qkv", w.qkv},
                  {"output", w.output},
                  {"output_bias", w.output_bias},
                  {"inner", w.inner},
                  {"inner_bias", w.inner_bias},
                  {"outer", w.outer},
                  {"outer_bias", w.outer_bias}}) {
  for (const Tensor& weight : weights_) forward_.push_back(packed_weight(weight, false, type));
  for (const Tensor& bias : {w.output_bias, w.inner_bias, w.outer_bias})
    biases_.push_back(bias.defined() ? bias.detach().clone(at::MemoryFormat::Contiguous) : bias);
}

template <class T>
BlockPanels<T> PackedBlock::panels(bool backward) const {
  if (backward) {
    std::call_once(once_, [this] {
      for (const Tensor& weight : weights_) backward_.push_back(packed_weight(weight, true));
    });
  }
  const auto& from = backward ? backward_ : forward_;
  return {panels_of<T>(from[0]), panels_of<T>(from[1]), panels_of<T>(from[2]),
          panels_of<T>(from[3])};
}
template BlockPanels<float> PackedBlock::panels(bool) const;
template BlockPanels<double> PackedBlock::panels(bool) const;

BlockWeights block_weights(BlockWeights weights, WeightType type) {
  for (Tensor* weight : {&weights.qkv, &weights.output, &weights.inner, &weights.outer})
    *weight = weight_as(*weight, type);
  if (attention_on_cpu(weights.qkv))
    weights.packed = std::make_shared<const PackedBlock>(weights, type);
  return weights;
}

namespace {

template <class T>
T* data(const Tensor& t) {
  return t.defined() ? t.data_ptr<T>() : nullptr;
}

template <class T>
BlockRows<T> rows_of(const BlockContext& c, const BlockKept& k, bool backward) {
  BlockRows<T> rows;
  rows.positions = k.z.size(1);
  rows.width = k.z.size(2);
  rows.inner = c.weights.inner.size(0);
  rows.norm = c.norm;
  rows.weights = c.weights.packed->panels<T>(backward);
  rows.output_bias = data<T>(c.weights.packed->output_bias());
  rows.inner_bias = data<T>(c.weights.packed->inner_bias());
  rows.outer_bias = data<T>(c.weights.packed->outer_bias());
  rows.output_mask = data<T>(c.output_mask);
  rows.inner_mask = data<T>(c.inner_mask);
  rows.outer_mask = data<T>(c.outer_mask);
  rows.z = data<T>(k.z);
  rows.injected = data<T>(c.injected);
  rows.qkv = data<T>(k.qkv);
  rows.seen = data<T>(k.seen);
  rows.f = data<T>(k.f);
  rows.normed = data<T>(k.normed);
  rows.hidden = data<T>(k.hidden);
  rows.spread = data<T>(k.spread);
  return rows;
}

/// The open rows of a (B, N, .) state, in blocks that stay in the second-level cache, about as many
/// for each thread.
class RowBlocks {
 public:
  RowBlocks(const OpenRows& open, int64_t positions) {
    const int64_t left = open.count(), threads = at::get_num_threads();
    const int64_t rounds = (left + 48 * threads - 1) / (48 * threads);
    const int64_t blocks = std::max<int64_t>(1, rounds * threads);
    longest_ = (left + 6 * blocks - 1) / (6 * blocks) * 6;
    int64_t begin = 0, end = 0;
    for (int64_t b = 0; b < open.batch(); ++b) {
      if (open.none(b)) continue;
      if (end != b * positions + open.begin(b)) {
        split(begin, end);
        begin = b * positions + open.begin(b);
      }
      end = b * positions + open.end(b);
    }
    split(begin, end);
  }

  /// Runs f(begin, end, scratch) over all of them; `scratch` for rows of `width` and `inner`.
  template <class T, class F>
  void run(int64_t width, int64_t inner, const F& f) const {
    run_tasks<T>(int64_t(blocks_.size()), block_scratch(longest_, width, inner),
                 [&](int64_t i, T* scratch) {
                   f(blocks_[size_t(i)].first, blocks_[size_t(i)].second, scratch);
                 });
  }

 private:
  void split(int64_t begin, int64_t end) {
    for (; begin < end; begin += longest_)
      blocks_.emplace_back(begin, std::min(end, begin + longest_));
  }

  int64_t longest_ = 0;
  std::vector<std::pair<int64_t, int64_t>> blocks_;
};

/// Leaves in k what f(k.z) gives. Of rows that are not open k holds it already.
template <class T>
void forward(const BlockContext& c, const PackedAttention& attention, BlockKept& k, bool taped,
             const OpenRows& open) {
  const int64_t B = k.z.size(0), N = k.z.size(1), D = k.z.size(2), I = c.weights.inner.size(0);
  const auto options = k.z.options().requires_grad(false);
  k.f = k.f.defined() ? with_closed_rows<T>(k.f, open, k.pool) : at::empty({B, N, D}, options);
  if (!k.qkv.defined()) {
    k.qkv = at::empty({B, N, 3 * D}, options);
    k.seen = at::empty({B, N, D}, options);
  }
  if (taped) {
    k.log_sum = at::empty({B, attention.view().heads, N}, options);
    k.normed = at::empty({B, N, D}, options);
    k.hidden = at::empty({B, N, I}, options);
    k.spread = at::empty({B, N, 2}, options);
  }
  const BlockRows<T> rows = rows_of<T>(c, k, false);
  const RowBlocks blocks(open, N);
  blocks.run<T>(D, I, [&](int64_t begin, int64_t end, T* scratch) {
    project_rows(rows, begin, end, scratch);
  });
  const auto parts = k.qkv.chunk(3, 2);
  attention_forward_cpu(parts[0], parts[1], parts[2], attention, open, k.seen, k.log_sum);
  blocks.run<T>(
      D, I, [&](int64_t begin, int64_t end, T* scratch) { feed_rows(rows, begin, end, scratch); });
}

Tensor flat(const Tensor& t) { return t.reshape({-1, t.size(-1)}); }

template <class T>
BlockGiven backward(const BlockContext& c, const PackedAttention& attention, const BlockKept& k,
                    const Tensor& df, bool all) {
  const auto options = df.options().requires_grad(false);
  const int64_t D = k.z.size(2), I = c.weights.inner.size(0);
  BlockGiven found;
  found.z = at::empty(k.z.sizes(), options);
  const Tensor seen = at::empty(k.z.sizes(), options);
  Tensor output, inner, outer;
  BlockGradients<T> to;
  to.df = data<T>(df);
  to.seen = seen.data_ptr<T>();
  to.z = found.z.data_ptr<T>();
  if (all) {
    output = at::empty(k.z.sizes(), options);
    inner = at::empty(k.hidden.sizes(), options);
    outer = at::empty(k.z.sizes(), options);
    to.output = output.data_ptr<T>();
    to.inner = inner.data_ptr<T>();
    to.outer = outer.data_ptr<T>();
  }
  const BlockRows<T> rows = rows_of<T>(c, k, true);
  const RowBlocks blocks(OpenRows(k.z.size(0), k.z.size(1)), k.z.size(1));
  blocks.run<T>(D, I, [&](int64_t begin, int64_t end, T* scratch) {
    feed_rows_backward(rows, to, begin, end, scratch);
  });
  const auto parts = k.qkv.chunk(3, 2);
  found.attention =
      attention_backward_cpu(parts[0], parts[1], parts[2], attention, k.seen, k.log_sum, seen, all);
  found.injected = found.attention.qkv;
  to.qkv = found.injected.data_ptr<T>();
  blocks.run<T>(D, I, [&](int64_t begin, int64_t end, T* scratch) {
    project_rows_backward(rows, to, begin, end, scratch);
  });
  if (!all) return found;
  const Tensor x = c.norm == NormPlace::Post ? k.z : at::layer_norm(k.z, {k.z.size(2)});
  found.qkv = weight_gradient(flat(found.injected), flat(x));
  found.output = weight_gradient(flat(output), flat(k.seen));
  found.output_bias = bias_gradient(flat(output));
  found.inner = weight_gradient(flat(inner), flat(k.normed));
  found.inner_bias = bias_gradient(flat(inner));
  found.outer = weight_gradient(flat(outer), flat(k.hidden));
  found.outer_bias = bias_gradient(flat(outer));
  return found;
}

/// Leaves in `passed` the gradient of z from df. Of rows that are not open it holds it already.
template <class T>
void resume_backward(const BlockContext& c, const PackedAttention& attention, const BlockKept& k,
                     const Tensor& df, const OpenRows& open, BlockPassed& passed) {
  const auto options = df.options().requires_grad(false);
  const int64_t N = k.z.size(1), D = k.z.size(2), I = c.weights.inner.size(0);
  if (passed.z.defined()) {
    passed.z = with_closed_rows<T>(passed.z, open, passed.pool);
  } else {
    passed.z = passed.pool.empty(k.z.sizes(), options);
    passed.seen = at::empty(k.z.sizes(), options);
    passed.qkv = at::empty(k.qkv.sizes(), options);
  }
  BlockGradients<T> to;
  to.df = data<T>(df);
  to.seen = passed.seen.data_ptr<T>();
  to.z = passed.z.data_ptr<T>();
  to.qkv = passed.qkv.data_ptr<T>();
  const BlockRows<T> rows = rows_of<T>(c, k, true);
  const RowBlocks blocks(open, N);
  blocks.run<T>(D, I, [&](int64_t begin, int64_t end, T* scratch) {
    feed_rows_backward(rows, to, begin, end, scratch);
  });
  const auto parts = k.qkv.chunk(3, 2);
  attention_resume_backward_cpu(parts[0], parts[1], parts[2], attention, open, k.seen, k.log_sum,
                                passed.seen, passed.qkv);
  blocks.run<T>(D, I, [&](int64_t begin, int64_t end, T* scratch) {
    project_rows_backward(rows, to, begin, end, scratch);
  });
}

}  // namespace

BlockKept block_forward_cpu(const BlockContext& context, const PackedAttention& attention,
                            const Tensor& z, bool taped) {
  BlockKept kept{.z = z};
  const OpenRows open(z.size(0), z.size(1));
  if (z.scalar_type() == at::kFloat) {
    forward<float>(context, attention, kept, taped, open);
  } else {
    forward<double>(context, attention, kept, taped, open);
  }
  return kept;
}

Tensor block_resume_cpu(const BlockContext& context, const PackedAttention& attention,
                        const Tensor& z, const std::vector<int64_t>& done, BlockKept& kept) {
  const OpenRows open = OpenRows::without_first(z.size(0), z.size(1), done);
  kept.z = z;
  if (z.scalar_type() == at::kFloat) {
    forward<float>(context, attention, kept, false, open);
  } else {
    forward<double>(context, attention, kept, false, open);
  }
  return kept.f;
}

Tensor block_resume_backward_cpu(const BlockContext& context, const PackedAttention& attention,
                                 const BlockKept& kept, const Tensor& df,
                                 const std::vector<int64_t>& done, BlockPassed& passed) {
  c10::NoGradGuard no_tape;
  const OpenRows open = OpenRows::without_last(df.size(0), df.size(1), done);
  if (df.scalar_type() == at::kFloat) {
    resume_backward<float>(context, attention, kept, df, open, passed);
  } else {
    resume_backward<double>(context, attention, kept, df, open, passed);
  }
  return passed.z;
}

BlockGiven block_backward_cpu(const BlockContext& context, const PackedAttention& attention,
                              const BlockKept& kept, const Tensor& df, bool all) {
  c10::NoGradGuard no_tape;
  return df.scalar_type() == at::kFloat ? backward<float>(context, attention, kept, df, all)
                                        : backward<double>(context, attention, kept, df, all);
}

}  // namespace deq::ops
