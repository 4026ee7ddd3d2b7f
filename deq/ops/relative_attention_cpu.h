// The CPU path of relative_attention: a block of queries of one head and sample at a time.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "deq/ops/attention_kernel.h"
#include "deq/ops/open_rows.h"
#include "deq/ops/relative_attention.h"

namespace deq::ops {

/// Rows of D numbers side by side, one behind the other, as the kernels read them: t itself or a
/// copy. (`contiguous()` would not do: it takes any stride where a dimension has size 1.)
at::Tensor with_rows(const at::Tensor& t);

/// What attention reads besides q, k and v, in the kernels' layout: packed once, read by every
/// evaluation of a solve. Safe to use from several threads.
class PackedAttention {
 public:
  /// Of a context whose shapes fit; float or double on the CPU.
  PackedAttention(const AttentionContext& context, const AttentionView& view);

  int64_t past() const { return M_; }
  const AttentionView& view() const { return view_; }
  const std::vector<int64_t>& hidden() const { return hidden_; }
  AttentionSpan span(int64_t b, int64_t queries) const {
    return {queries, M_, view_.causal, view_.window, hidden_.empty() ? 0 : hidden_[size_t(b)]};
  }
  /// For head h of sample b, without q, k and v. `backward` packs what only backward reads.
  template <class T>
  AttentionHead<T> head(int64_t b, int64_t h, int64_t queries, bool backward) const;
  void prepare_backward() const;

 private:
  template <class T>
  at::Tensor pack_heads(const at::Tensor& x, bool columns) const;
  at::Tensor packed(const at::Tensor& x, bool columns) const;

  AttentionView view_;
  std::vector<int64_t> hidden_;
  int64_t H_, d_, M_ = 0, R_ = 0;
  at::Tensor past_k_, past_v_, r_;        // as given, (B, M, D) and (R, D)
  at::Tensor keys_, values_, positions_;  // (B H, .), (1 H, .) packed
  at::Tensor content_bias_, position_bias_, mask_;
  mutable std::once_flag once_;
  mutable at::Tensor key_rows_, value_columns_, position_rows_;
};

bool attention_on_cpu(const at::Tensor& q);

/// Fills y (B, T, D), contiguous, from q, k, v as with_rows gives them; where `log_sum` (B, H, T)
/// is defined, it too, which backward needs. Of the queries that are open, of which there are those
/// up to the last.
void attention_forward_cpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const PackedAttention& packed, const OpenRows& open, const at::Tensor& y,
                           const at::Tensor& log_sum);

/// Gradients; q, k and v are slices of one (B, T, 3 D) tensor. The others undefined unless all are
/// wanted.
struct AttentionGradients {
  at::Tensor qkv, past_k, past_v, r, content_bias, position_bias;
};
AttentionGradients attention_backward_cpu(const at::Tensor& q, const at::Tensor& k,
                                          const at::Tensor& v, const PackedAttention& packed,
                                          const at::Tensor& y, const at::Tensor& log_sum,
                                          const at::Tensor& dy, bool all);

/// Those of q, k and v alone, into dqkv (B, T, 3 D): of all positions of the samples in which some
/// are open.
void attention_resume_backward_cpu(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                   const PackedAttention& packed, const OpenRows& open,
                                   const at::Tensor& y, const at::Tensor& log_sum,
                                   const at::Tensor& dy, const at::Tensor& dqkv);

}  // namespace deq::ops
