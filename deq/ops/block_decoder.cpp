#include "deq/ops/block_decoder.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "deq/base/error.h"
#include "deq/ops/decoding_kernel.h"
#include "deq/ops/packed.h"
#include "deq/ops/tasks.h"
#include "deq/ops/transformer_block_cpu.h"
#include "deq/ops/transformer_kernel.h"

namespace deq::ops {

using at::Tensor;

namespace {

/// Texts that share an evaluation of a head: their scores by position are one product.
constexpr int64_t kTexts = 48;
constexpr int64_t kRows = 48;  // of a block that stays in the cache

template <class T>
T* row_of(const Tensor& t, int64_t row) {
  return t.defined() ? t.data_ptr<T>() + row * t.size(-1) : nullptr;
}

/// Rows of `from` (B, .) one behind the other.
template <class T>
Tensor gathered(const Tensor& from, const std::vector<int64_t>& rows, TensorPool& pool) {
  const int64_t n = from.size(-1);
  const Tensor out = pool.empty({int64_t(rows.size()), n}, from.options());
  for (size_t i = 0; i < rows.size(); ++i)
    std::copy_n(row_of<T>(from, rows[i]), n, row_of<T>(out, int64_t(i)));
  return out;
}

/// (R, D) as (d, R) of every head, packed.
template <class T>
Tensor packed_heads(const Tensor& r, int64_t heads) {
  const int64_t R = r.size(0), d = r.size(1) / heads, size = packed_size<T>(d, R);
  const Tensor out = at::empty({heads, size}, r.options());
  for (int64_t h = 0; h < heads; ++h)
    pack(Strided<T>{r.data_ptr<T>() + h * d, 1, r.size(1)}, d, R, out.data_ptr<T>() + h * size);
  return out;
}

}  // namespace

BlockDecoder::BlockDecoder(NormPlace norm, const AttentionView& view, const BlockWeights& weights,
                           const Tensor& content_bias, const Tensor& position_bias, int64_t texts,
                           int64_t length)
    : norm_(norm),
      view_(view),
      weights_(weights),
      D_(weights.output.size(0)),
      content_bias_(content_bias.detach().contiguous()),
      position_bias_(position_bias.detach().contiguous()),
      row_(size_t(texts), -1) {
  DEQ_CHECK(weights.packed && view.causal && !view.float_scores,
            "BlockDecoder: weights without a layout, or attention that kernels have not; expected "
            "floats or doubles on the CPU, causal, without rounding");
  const auto type = weights.qkv.scalar_type();
  for (int64_t text = 0; text < texts; ++text) pasts_.emplace_back(view.heads, D_, length, type);
  const auto options = weights.qkv.options().requires_grad(false);
  qkv_ = at::empty({texts, 3 * D_}, options);
  seen_ = at::empty({texts, D_}, options);
}

void BlockDecoder::set_positions(const Tensor& r) {
  const Tensor rows = r.detach().contiguous();
  rows_ = rows.size(0);
  positions_ = rows.scalar_type() == at::kFloat ? packed_heads<float>(rows, view_.heads)
                                                : packed_heads<double>(rows, view_.heads);
}

void BlockDecoder::enter(int64_t text, const Tensor& injected) {
  if (!injected.defined()) return;
  if (!injected_.defined())
    injected_ = at::zeros({int64_t(row_.size()), 3 * D_}, injected.options());
  DEQ_CHECK(injected.numel() == 3 * D_ && injected.scalar_type() == injected_.scalar_type(),
            "BlockDecoder: injected is [{}] of {}; expected {} of {}",
            fmt::join(injected.sizes(), ", "), c10::toString(injected.scalar_type()), 3 * D_,
            c10::toString(injected_.scalar_type()));
  const size_t bytes = size_t(3 * D_) * injected_.element_size();
  std::memcpy(static_cast<char*>(injected_.data_ptr()) + size_t(text) * bytes,
              injected.contiguous().data_ptr(), bytes);
}

Tensor BlockDecoder::operator()(const Tensor& z, const std::vector<int64_t>& done) {
  const auto texts = int64_t(row_.size());
  DEQ_CHECK(z.sizes() == at::IntArrayRef({texts, 1, D_}),
            "BlockDecoder: z is [{}]; expected [{}, 1, {}]", fmt::join(z.sizes(), ", "), texts, D_);
  weights_.packed->check_unchanged();
  std::vector<int64_t> open;
  for (int64_t text = 0; text < texts; ++text) {
    row_[size_t(text)] = -1;
    if (!done.empty() && done[size_t(text)] > 0) continue;
    row_[size_t(text)] = int64_t(open.size());
    open.push_back(text);
    DEQ_CHECK(past(text).end() - past(text).begin() < positions(),
              "BlockDecoder: {} positions of text {}; expected fewer than {}",
              past(text).end() - past(text).begin(), text, positions());
  }
  const Tensor rows = z.detach().contiguous().view({texts, D_});
  return rows.scalar_type() == at::kFloat ? evaluate<float>(rows, open)
                                          : evaluate<double>(rows, open);
}

template <class T>
Tensor BlockDecoder::evaluate(const Tensor& z, const std::vector<int64_t>& open) {
  const auto texts = int64_t(row_.size()), n = int64_t(open.size());
  const bool all = n == texts;
  const int64_t I = weights_.inner.size(0);
  const Tensor f = pool_.empty({texts, 1, D_}, z.options());
  if (n == 0) return f;
  const Tensor injected =
      all || !injected_.defined() ? injected_ : gathered<T>(injected_, open, pool_);
  const Tensor to = all ? f : pool_.empty({n, D_}, z.options());
  z_ = all ? z : gathered<T>(z, open, pool_);
  BlockRows<T> rows;
  rows.width = D_;
  rows.inner = I;
  rows.norm = norm_;
  rows.weights = weights_.packed->panels<T>(false);
  rows.output_bias = row_of<T>(weights_.packed->output_bias(), 0);
  rows.inner_bias = row_of<T>(weights_.packed->inner_bias(), 0);
  rows.outer_bias = row_of<T>(weights_.packed->outer_bias(), 0);
  rows.z = row_of<T>(z_, 0);
  rows.injected = row_of<T>(injected, 0);
  rows.qkv = row_of<T>(qkv_, 0);
  rows.seen = row_of<T>(seen_, 0);
  rows.f = row_of<T>(to, 0);
  // Blocks that stay in the cache, about as many for each thread.
  const int64_t threads = at::get_num_threads();
  const int64_t share = std::min(kRows, (n + threads - 1) / threads), block = (share + 5) / 6 * 6;
  const int64_t blocks = (n + block - 1) / block;
  const auto run = [&](const auto& kernel) {
    run_tasks<T>(blocks, block_scratch(block, D_, I), [&](int64_t i, T* scratch) {
      kernel(rows, i * block, std::min(n, (i + 1) * block), scratch);
    });
  };
  run([](const auto& b, int64_t begin, int64_t end, T* s) { project_rows(b, begin, end, s); });
  attend<T>(open);
  run([](const auto& b, int64_t begin, int64_t end, T* s) { feed_rows(b, begin, end, s); });
  for (size_t i = 0; !all && i < open.size(); ++i)
    std::copy_n(row_of<T>(to, int64_t(i)), D_, row_of<T>(f, open[i]));
  return f;
}

template <class T>
void BlockDecoder::attend(const std::vector<int64_t>& open) {
  const int64_t H = view_.heads, d = D_ / H, n = int64_t(open.size());
  int64_t most = 0, keys = 0, pairs = 0;
  std::vector<int64_t> first(open.size());
  for (size_t i = 0; i < open.size(); ++i) {
    const PastKeys& past = pasts_[size_t(open[i])];
    first[i] = std::max(past.begin(), view_.window > 0 ? past.end() - view_.window + 1 : 0);
    most = std::max(most, past.end() - first[i] + 1);
    keys = std::max(keys, past.end() + 1);
    pairs += past.end() - first[i] + 1;
  }
  const int64_t groups = (n + kTexts - 1) / kTexts;
  const int64_t numbers = decoding_scratch<T>(std::min(n, kTexts), most, keys, d);
  run_tasks<T>(
      H * groups, numbers,
      [&](int64_t task, T* scratch) {
        const int64_t h = task % H, begin = task / H * kTexts, end = std::min(n, begin + kTexts);
        DecodingText<T> texts[kTexts];
        for (int64_t i = begin; i < end; ++i) {
          const PastKeys& past = pasts_[size_t(open[size_t(i)])];
          const T* const q = row_of<T>(qkv_, i) + h * d;
          texts[i - begin] = {q,
                              q + D_,
                              q + 2 * D_,
                              past.head_keys<T>(h),
                              past.head_values<T>(h),
                              past.panel(),
                              first[size_t(i)],
                              past.end(),
                              row_of<T>(seen_, i) + h * d};
        }
        decoding_head({d, rows_, positions_.data_ptr<T>() + h * positions_.size(1),
                       content_bias_.data_ptr<T>() + h * d, position_bias_.data_ptr<T>() + h * d},
                      texts, end - begin, scratch);
      },
      3 * pairs * H * d);
}

bool BlockDecoder::take(int64_t text, const Tensor& z) {
  return z.scalar_type() == at::kFloat ? take<float>(text, z) : take<double>(text, z);
}

template <class T>
bool BlockDecoder::take(int64_t text, const Tensor& z) {
  const int64_t row = row_[size_t(text)];
  // With a norm before them, keys and values of a past are made in another way, to rounding.
  if (norm_ != NormPlace::Post || row < 0) return false;
  const Tensor given = z.contiguous();
  if (std::memcmp(row_of<T>(z_, row), given.data_ptr(), size_t(D_) * sizeof(T)) != 0) return false;
  const T* const k = row_of<T>(qkv_, row) + D_;
  pasts_[size_t(text)].append(k, k + D_);
  return true;
}

void BlockDecoder::append(int64_t text, const Tensor& k, const Tensor& v) {
  PastKeys& past = pasts_[size_t(text)];
  if (k.scalar_type() == at::kFloat) {
    past.append(k.data_ptr<float>(), v.data_ptr<float>());
  } else {
    past.append(k.data_ptr<double>(), v.data_ptr<double>());
  }
}

}  // namespace deq::ops
