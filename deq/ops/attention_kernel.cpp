// Compiled once per SIMD target (Highway).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deq/ops/attention_kernel.cpp"
#include "deq/ops/attention_kernel.h"

#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "deq/ops/attention-inl.h"
#include "deq/ops/lines-inl.h"
#include "deq/ops/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// g[j] = a[j] (g[j] - sum), also into `copy`.
template <class T>
void score_gradient(const T* a, T* g, T sum, T* copy, int64_t n) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = int64_t(hn::Lanes(d));
  const auto minus = hn::Set(d, sum);
  int64_t j = 0;
  for (; j + lanes <= n; j += lanes) {
    const auto v = hn::Mul(hn::LoadU(d, a + j), hn::Sub(hn::LoadU(d, g + j), minus));
    hn::StoreU(v, d, g + j);
    hn::StoreU(v, d, copy + j);
  }
  if (j == n) return;
  const auto v = hn::Mul(load_first(d, a + j, n - j), hn::Sub(load_first(d, g + j, n - j), minus));
  store_first(d, v, g + j, n - j);
  store_first(d, v, copy + j, n - j);
}

constexpr int64_t kBlockRows = 48;

/// Queries whose scores are held at a time: the scores of a block stay in the second-level cache.
inline int64_t block_rows(const AttentionSpan& span) {
  const int64_t fit = 32768 / span.keys() / kTileRows * kTileRows;
  return std::min<int64_t>(std::clamp<int64_t>(fit, kTileRows, kBlockRows), span.queries);
}

/// One head at work: its memory and the steps that both directions share.
template <class T>
class Head {
 public:
  Head(const AttentionHead<T>& head, bool backward, T* scratch)
      : h_(head),
        s_(head.span),
        d_(head.width),
        K_(head.span.keys()),
        W_(panel_width<T>()),
        scale_(T(1 / std::sqrt(double(head.width)))) {
    Pieces<T> pieces{scratch};
    const int64_t n = block_rows(s_);
    // Columns of positions that a block meets, from the start of a panel on.
    position_row_ = K_ + n + 2 * W_;
    own_keys_ = pieces.take(packed_size<T>(d_, s_.queries));
    own_values_ = pieces.take(packed_size<T>(s_.queries, d_));
    content_ = pieces.take(n * d_);
    place_ = pieces.take(n * d_);
    scores_ = pieces.take(n * K_);
    by_position_ = pieces.take(n * position_row_);
    if (backward) {
      own_key_rows_ = pieces.take(packed_size<T>(s_.queries, d_));
      own_value_columns_ = pieces.take(packed_size<T>(d_, s_.queries));
      gradient_ = pieces.take(n * K_);
      dropped_ = pieces.take(n * K_);
      packed_ = pieces.take(packed_size<T>(n, d_));
      dq_ = pieces.take(n * d_);
    }
    size_ = pieces.taken;
  }

  /// Numbers of the memory taken.
  int64_t size() const { return size_; }

  void forward(T* y, int64_t y_row, T* log_sum) {
    if (h_.done >= s_.queries) return;
    pack_own(false);
    const int64_t n = block_rows(s_);
    for (int64_t i = h_.done; i < s_.queries; i += n) {
      const Block b = block(i, std::min(i + n, s_.queries));
      scores(b);
      T* out = y + i * y_row;
      for (int64_t r = 0; r < b.rows(); ++r) {
        T* s = scores_ + r * K_;
        const int64_t first = s_.first(i + r), count = s_.last(i + r) - first;
        const T top = add_and_max(s + first, position(b, r) + first, count);
        const T sum = exp_and_sum<T>(s + first, nullptr, top, count);
        sums_[r] = T(1) / sum;
        if (log_sum) log_sum[i + r] = top + std::log(sum);
        clear_outside(b, r, s);
        if (h_.mask) multiply_line(h_.mask + (i + r) * K_ + first, count, s + first);
      }
      times_keys(b, scores_, h_.past.values, own_values_, out, y_row);
      for (int64_t r = 0; r < b.rows(); ++r) {
        for (int64_t c = 0; c < d_; ++c) out[r * y_row + c] *= sums_[r];
      }
    }
  }

  void backward(const Strided<T>& y, const T* log_sum, const Strided<T>& dy,
                const HeadGradients<T>& out) {
    pack_own(true);
    clear(out);
    const int64_t n = block_rows(s_);
    for (int64_t i = 0; i < s_.queries; i += n) {
      const Block b = block(i, std::min(i + n, s_.queries));
      const Strided<T> dy_block = dy.down(i), y_block = y.down(i);
      scores(b);
      by_keys(b, dy_block, h_.past.value_columns, own_value_columns_, gradient_);
      const T* weights = h_.mask ? dropped_ : scores_;
      for (int64_t r = 0; r < b.rows(); ++r)
        row_gradient(b, r, log_sum[i + r],
                     dot(dy_block.data + r * dy_block.row, y_block.data + r * y_block.row, d_));
      // Of values: weights^T dy.
      pack<T>(dy_block, b.rows(), d_, packed_, b.rows() * W_);
      for_keys(b, weights, out.past_v, out.past_row, out.v, out.row);
      queries(b, out);
      // Of keys: gradient^T (q + a).
      pack<T>({content_, d_, 1}, b.rows(), d_, packed_, b.rows() * W_);
      for_keys(b, gradient_, out.past_k, out.past_row, out.k, out.row);
      if (!out.positions) continue;
      pack<T>({place_, d_, 1}, b.rows(), d_, packed_, b.rows() * W_);
      product<T>(b.position_count, d_, b.rows(), {by_position_, 1, position_row_}, packed_,
                 b.rows() * W_, out.positions + b.position * out.positions_row, out.positions_row,
                 true);
    }
  }

 private:
  /// Queries begin .. end - 1, the keys low .. high - 1 that any of them sees, and the rows of the
  /// positions at which they meet them.
  struct Block {
    int64_t begin, end, low, high;
    int64_t position, position_count;
    int64_t rows() const { return end - begin; }
  };

  Block block(int64_t begin, int64_t end) const {
    Block b{begin, end, s_.first(begin), s_.last(end - 1), 0, 0};
    const int64_t from = s_.queries - end + b.low + h_.first_row;
    const int64_t to =
        std::min(s_.queries - 1 - begin + b.high - 1 + h_.first_row, h_.rows - 1) + 1;
    b.position = from / W_ * W_;
    b.position_count = to - b.position;
    return b;
  }

  /// Entry j is the position's part of the score of key j, in row r of the block.
  T* position(const Block& b, int64_t r) const {
    return by_position_ + r * position_row_ + (s_.queries - 1 - (b.begin + r) + h_.first_row) -
           b.position;
  }

  void pack_own(bool backward) {
    pack<T>(h_.k.transposed(), d_, s_.queries, own_keys_, d_ * W_);
    if (!backward) return pack<T>(h_.v, s_.queries, d_, own_values_, s_.queries * W_);
    pack<T>(h_.k, s_.queries, d_, own_key_rows_, s_.queries * W_);
    pack<T>(h_.v.transposed(), d_, s_.queries, own_value_columns_, d_ * W_);
  }

  /// The parts of the scores: by content in scores_, (., K); by position in by_position_.
  void scores(const Block& b) {
    biased(h_.q.down(b.begin), h_.content_bias, scale_, b.rows(), d_, content_);
    biased(h_.q.down(b.begin), h_.position_bias, scale_, b.rows(), d_, place_);
    by_keys(b, {content_, d_, 1}, h_.past.keys, own_keys_, scores_);
    product<T>(b.rows(), b.position_count, d_, {place_, d_, 1},
               h_.positions.keys + b.position / W_ * d_ * W_, d_ * W_, by_position_, position_row_,
               false);
  }

  /// out (., K) = x (., d) times columns of keys (d, n) at least over low .. high - 1.
  void by_keys(const Block& b, const Strided<T>& x, const T* past, const T* own, T* out) {
    if (b.low < s_.past) {
      const int64_t from = b.low / W_ * W_, to = std::min(b.high, s_.past);
      product<T>(b.rows(), to - from, d_, x, past + from * d_, d_ * W_, out + from, K_, false);
    }
    if (b.high > s_.past) {
      const int64_t from = own_low(b) / W_ * W_;
      product<T>(b.rows(), b.high - s_.past - from, d_, x, own + from * d_, d_ * W_,
                 out + s_.past + from, K_, false);
    }
  }

  /// out (., d) = x (., K) over low .. high - 1 times rows of keys or values (n, d).
  void times_keys(const Block& b, const T* x, const T* past, const T* own, T* out, int64_t row) {
    const bool both = b.low < s_.past;
    if (both) {
      product<T>(b.rows(), d_, std::min(b.high, s_.past) - b.low, {x + b.low, K_, 1},
                 past + b.low * W_, h_.past.panel, out, row, false);
    }
    if (b.high > s_.past) {
      const int64_t from = own_low(b);
      product<T>(b.rows(), d_, b.high - s_.past - from, {x + s_.past + from, K_, 1},
                 own + from * W_, s_.queries * W_, out, row, both);
    }
  }

  /// past and own (n, d) += x^T (low .. high - 1, .) times packed_.
  void for_keys(const Block& b, const T* x, T* past, int64_t past_row, T* own, int64_t row) {
    if (past && b.low < s_.past) {
      product<T>(std::min(b.high, s_.past) - b.low, d_, b.rows(), {x + b.low, 1, K_}, packed_,
                 b.rows() * W_, past + b.low * past_row, past_row, true);
    }
    if (b.high > s_.past) {
      const int64_t from = own_low(b);
      product<T>(b.high - s_.past - from, d_, b.rows(), {x + s_.past + from, 1, K_}, packed_,
                 b.rows() * W_, own + from * row, row, true);
    }
  }

  int64_t own_low(const Block& b) const { return std::max<int64_t>(b.low - s_.past, 0); }

  /// Zeros where keys low .. high - 1 are hidden from row r.
  void clear_outside(const Block& b, int64_t r, T* s) const {
    std::fill(s + b.low, s + s_.first(b.begin + r), T(0));
    std::fill(s + s_.last(b.begin + r), s + b.high, T(0));
  }

  /// Probabilities of row r in scores_ (times the mask in dropped_), the scores' gradient in
  /// gradient_ and, by position, in by_position_. `mean` is the row's sum of probability times
  /// gradient.
  void row_gradient(const Block& b, int64_t r, T log_sum, T mean) {
    const int64_t i = b.begin + r, first = s_.first(i), count = s_.last(i) - first;
    T *s = scores_ + r * K_, *g = gradient_ + r * K_, *p = position(b, r);
    exp_and_sum<T>(s + first, p + first, log_sum, count);
    clear_outside(b, r, s);
    if (h_.mask) {
      const T* m = h_.mask + i * K_;
      T* kept = dropped_ + r * K_;
      std::copy(s + b.low, s + b.high, kept + b.low);
      multiply_line(m + first, count, kept + first);
      multiply_line(m + first, count, g + first);
    }
    score_gradient(s + first, g + first, mean, p + first, count);
    clear_outside(b, r, g);
    T* row = by_position_ + r * position_row_;
    std::fill(row, p + first, T(0));
    std::fill(p + first + count, row + b.position_count, T(0));
  }

  /// dq = scale (gradient K + gradient by position R), and its column sums.
  void queries(const Block& b, const HeadGradients<T>& out) {
    times_keys(b, gradient_, h_.past.key_rows, own_key_rows_, dq_, d_);
    if (out.positions) add_columns(b.rows(), out.content_bias, T(1));
    if (out.positions) add_columns(b.rows(), out.position_bias, T(-1));
    product<T>(b.rows(), d_, b.position_count, {by_position_, position_row_, 1},
               h_.positions.key_rows + b.position * W_, h_.positions.panel, dq_, d_, true);
    if (out.positions) add_columns(b.rows(), out.position_bias, T(1));
    for (int64_t r = 0; r < b.rows(); ++r) {
      T* to = out.q + (b.begin + r) * out.row;
      for (int64_t c = 0; c < d_; ++c) to[c] = scale_ * dq_[r * d_ + c];
    }
  }

  void add_columns(int64_t rows, T* to, T sign) const {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t c = 0; c < d_; ++c) to[c] += sign * scale_ * dq_[r * d_ + c];
    }
  }

  void clear(const HeadGradients<T>& out) const {
    for (int64_t i = 0; i < s_.queries; ++i) {
      std::fill_n(out.k + i * out.row, d_, T(0));
      std::fill_n(out.v + i * out.row, d_, T(0));
    }
    for (int64_t i = 0; out.past_k && i < s_.past; ++i) {
      std::fill_n(out.past_k + i * out.past_row, d_, T(0));
      std::fill_n(out.past_v + i * out.past_row, d_, T(0));
    }
    if (!out.positions) return;
    for (int64_t i = 0; i < h_.rows; ++i)
      std::fill_n(out.positions + i * out.positions_row, d_, T(0));
    std::fill_n(out.content_bias, d_, T(0));
    std::fill_n(out.position_bias, d_, T(0));
  }

  const AttentionHead<T>& h_;
  const AttentionSpan& s_;
  int64_t d_, K_, W_;
  T scale_;
  int64_t position_row_ = 0;
  T *own_keys_ = nullptr, *own_values_ = nullptr, *own_key_rows_ = nullptr,
    *own_value_columns_ = nullptr;           // packed
  T *content_ = nullptr, *place_ = nullptr;  // (n, d) queries with either bias, scaled
  T *scores_ = nullptr, *by_position_ = nullptr;
  T *gradient_ = nullptr, *dropped_ = nullptr;  // (n, K)
  T *packed_ = nullptr, *dq_ = nullptr;         // (n, d)
  int64_t size_ = 0;
  T sums_[kBlockRows];  // 1 / the sum of exponentials of each query of a block
};

int64_t scratch_float(const AttentionSpan& span, int64_t width, bool backward) {
  AttentionHead<float> head;
  head.span = span;
  head.width = width;
  return Head<float>(head, backward, nullptr).size();
}
int64_t scratch_double(const AttentionSpan& span, int64_t width, bool backward) {
  AttentionHead<double> head;
  head.span = span;
  head.width = width;
  return Head<double>(head, backward, nullptr).size();
}
void forward_float(const AttentionHead<float>& h, float* y, int64_t row, float* l, float* s) {
  Head<float>(h, false, s).forward(y, row, l);
}
void forward_double(const AttentionHead<double>& h, double* y, int64_t row, double* l, double* s) {
  Head<double>(h, false, s).forward(y, row, l);
}
void backward_float(const AttentionHead<float>& h, Strided<float> y, const float* l,
                    Strided<float> dy, const HeadGradients<float>& out, float* s) {
  Head<float>(h, true, s).backward(y, l, dy, out);
}
void backward_double(const AttentionHead<double>& h, Strided<double> y, const double* l,
                     Strided<double> dy, const HeadGradients<double>& out, double* s) {
  Head<double>(h, true, s).backward(y, l, dy, out);
}

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deq::ops {
HWY_EXPORT(scratch_float);
HWY_EXPORT(scratch_double);
HWY_EXPORT(forward_float);
HWY_EXPORT(forward_double);
HWY_EXPORT(backward_float);
HWY_EXPORT(backward_double);

template <>
int64_t attention_scratch<float>(const AttentionSpan& span, int64_t width, bool backward) {
  return HWY_DYNAMIC_DISPATCH(scratch_float)(span, width, backward);
}
template <>
int64_t attention_scratch<double>(const AttentionSpan& span, int64_t width, bool backward) {
  return HWY_DYNAMIC_DISPATCH(scratch_double)(span, width, backward);
}
void attention_head(const AttentionHead<float>& h, float* y, int64_t row, float* l, float* s) {
  HWY_DYNAMIC_DISPATCH(forward_float)(h, y, row, l, s);
}
void attention_head(const AttentionHead<double>& h, double* y, int64_t row, double* l, double* s) {
  HWY_DYNAMIC_DISPATCH(forward_double)(h, y, row, l, s);
}
void attention_head_backward(const AttentionHead<float>& h, Strided<float> y, const float* l,
                             Strided<float> dy, const HeadGradients<float>& out, float* s) {
  HWY_DYNAMIC_DISPATCH(backward_float)(h, y, l, dy, out, s);
}
void attention_head_backward(const AttentionHead<double>& h, Strided<double> y, const double* l,
                             Strided<double> dy, const HeadGradients<double>& out, double* s) {
  HWY_DYNAMIC_DISPATCH(backward_double)(h, y, l, dy, out, s);
}
}  // namespace deq::ops
#endif
