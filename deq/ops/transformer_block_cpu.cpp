#include "deq/ops/transformer_block_cpu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <memory>

#include "deq/ops/packed.h"

namespace deq::ops {

using at::Tensor;

PackedBlock::PackedBlock(const BlockWeights& w)
    : weights_{w.qkv.detach(), w.output.detach(), w.inner.detach(), w.outer.detach()} {
  for (const Tensor& weight : weights_) forward_.push_back(packed_weight(weight, false));
}

template <class T>
BlockPanels<T> PackedBlock::panels(bool backward) const {
  if (backward) {
    std::call_once(once_, [this] {
      for (const Tensor& weight : weights_) backward_.push_back(packed_weight(weight, true));
    });
  }
  const auto& from = backward ? backward_ : forward_;
  return {from[0].data_ptr<T>(), from[1].data_ptr<T>(), from[2].data_ptr<T>(),
          from[3].data_ptr<T>()};
}

BlockWeights block_weights(BlockWeights weights) {
  if (attention_on_cpu(weights.qkv)) weights.packed = std::make_shared<const PackedBlock>(weights);
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
  rows.output_bias = data<T>(c.weights.output_bias);
  rows.inner_bias = data<T>(c.weights.inner_bias);
  rows.outer_bias = data<T>(c.weights.outer_bias);
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

/// The rows of a (B, N, .) state that are not done, in blocks that stay in the second-level cache.
class RowBlocks {
 public:
  /// Without the first done[b] positions of sample b; empty: all.
  RowBlocks(int64_t batch, int64_t positions, const std::vector<int64_t>& done = {}) {
    int64_t begin = 0, end = 0, left = batch * positions;
    for (const int64_t positions_done : done) left -= positions_done;
    const int64_t threads = at::get_num_threads(), share = (left + threads - 1) / threads;
    longest_ = std::min<int64_t>(48, (share + 5) / 6 * 6);
    for (int64_t b = 0; b < batch; ++b) {
      const int64_t first = done.empty() ? 0 : done[size_t(b)];
      if (first == positions) continue;
      if (first > 0 || end != b * positions) {
        split(begin, end);
        begin = b * positions + first;
      }
      end = (b + 1) * positions;
    }
    split(begin, end);
  }

  /// Runs f(begin, end, scratch) over all of them; `scratch` for rows of `width` and `inner`.
  template <class T, class F>
  void run(int64_t width, int64_t inner, const F& f) const {
    at::parallel_for(0, int64_t(blocks_.size()), 1, [&](int64_t from, int64_t to) {
      const auto scratch =
          std::make_unique_for_overwrite<T[]>(size_t(block_scratch(longest_, width, inner)));
      for (int64_t i = from; i < to; ++i)
        f(blocks_[size_t(i)].first, blocks_[size_t(i)].second, scratch.get());
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

/// Leaves in k what f(k.z) gives. Of rows that are done k holds it already.
template <class T>
void forward(const BlockContext& c, const PackedAttention& attention, BlockKept& k, bool taped,
             const std::vector<int64_t>& done) {
  const int64_t B = k.z.size(0), N = k.z.size(1), D = k.z.size(2), I = c.weights.inner.size(0);
  const auto options = k.z.options().requires_grad(false);
  const Tensor before = k.f;
  k.f = at::empty({B, N, D}, options);
  for (size_t b = 0; b < done.size(); ++b)
    std::copy_n(before.data_ptr<T>() + int64_t(b) * N * D, done[b] * D,
                k.f.data_ptr<T>() + int64_t(b) * N * D);
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
  const RowBlocks blocks(B, N, done);
  blocks.run<T>(D, I, [&](int64_t begin, int64_t end, T* scratch) {
    project_rows(rows, begin, end, scratch);
  });
  const auto parts = k.qkv.chunk(3, 2);
  attention_forward_cpu(parts[0], parts[1], parts[2], attention, k.seen, k.log_sum, done);
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
  const RowBlocks blocks(k.z.size(0), k.z.size(1));
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
  found.qkv = at::mm(flat(found.injected).t(), flat(x));
  found.output = at::mm(flat(output).t(), flat(k.seen));
  found.output_bias = flat(output).sum(0);
  found.inner = at::mm(flat(inner).t(), flat(k.normed));
  found.inner_bias = flat(inner).sum(0);
  found.outer = at::mm(flat(outer).t(), flat(k.hidden));
  found.outer_bias = flat(outer).sum(0);
  return found;
}

}  // namespace

BlockKept block_forward_cpu(const BlockContext& context, const PackedAttention& attention,
                            const Tensor& z, bool taped) {
  BlockKept kept{.z = z};
  if (z.scalar_type() == at::kFloat) {
    forward<float>(context, attention, kept, taped, {});
  } else {
    forward<double>(context, attention, kept, taped, {});
  }
  return kept;
}

Tensor block_resume_cpu(const BlockContext& context, const PackedAttention& attention,
                        const Tensor& z, const std::vector<int64_t>& done, BlockKept& kept) {
  const std::vector<int64_t> none;
  const auto& known = kept.f.defined() ? done : none;
  kept.z = z;
  if (z.scalar_type() == at::kFloat) {
    forward<float>(context, attention, kept, false, known);
  } else {
    forward<double>(context, attention, kept, false, known);
  }
  return kept.f;
}

BlockGiven block_backward_cpu(const BlockContext& context, const PackedAttention& attention,
                              const BlockKept& kept, const Tensor& df, bool all) {
  c10::NoGradGuard no_tape;
  return df.scalar_type() == at::kFloat ? backward<float>(context, attention, kept, df, all)
                                        : backward<double>(context, attention, kept, df, all);
}

}  // namespace deq::ops
