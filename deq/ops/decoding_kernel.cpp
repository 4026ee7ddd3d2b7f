// Compiled once per SIMD target (Highway).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deq/ops/decoding_kernel.cpp"
#include "deq/ops/decoding_kernel.h"

#include <hwy/cache_control.h>
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

/// Scratch of one head: the queries with either bias, their scores by position, and one text's by
/// content.
template <class T>
struct DecodingScratch {
  T *content, *place, *by_position, *scores;
  int64_t row, size;  // of by_position

  DecodingScratch(T* memory, int64_t texts, int64_t rows, int64_t keys, int64_t width) {
    Pieces<T> pieces{memory};
    const int64_t W = panel_width<T>();
    row = rows + W;
    content = pieces.take(texts * width);
    place = pieces.take(texts * width);
    by_position = pieces.take(texts * row);
    scores = pieces.take(keys + 2 * W);
    size = pieces.taken;
  }
};

/// The query's own key and value, where the next position's belong.
template <class T>
void put_own(const DecodingText<T>& text, int64_t d) {
  const int64_t W = panel_width<T>();
  T* key = text.keys + text.past / W * d * W + text.past % W;
  for (int64_t c = 0; c < d; ++c) key[c * W] = text.k[c];
  for (int64_t c = 0; c < d; c += W)
    std::copy_n(text.v + c, std::min(W, d - c), text.values + c / W * text.panel + text.past * W);
}

/// Memory that is read next, asked for while other work is done: a line for each that is read.
template <class T>
struct Ahead {
  const T *at = nullptr, *end = nullptr;

  HWY_INLINE void ask(int64_t lines) {
    for (int64_t i = 0; i < lines && at < end; ++i, at += 64 / sizeof(T)) hwy::Prefetch(at);
  }
};

/// to (G panels of columns) = x (d) times G panels of keys: as product() sums them.
template <int G, class T>
HWY_INLINE void panels_of_scores(const T* HWY_RESTRICT x, const T* HWY_RESTRICT keys, int64_t d,
                                 T* HWY_RESTRICT to, Ahead<T>& next) {
  const hn::ScalableTag<T> tag;
  const int64_t L = int64_t(hn::Lanes(tag)), panel = 2 * L * d;
  using V = hn::Vec<decltype(tag)>;
  const V zero = hn::Zero(tag);
  V a0 = zero, a1 = zero, b0 = zero, b1 = zero, c0 = zero, c1 = zero, d0 = zero, d1 = zero;
  for (int64_t p = 0; p < d; ++p, keys += 2 * L) {
    const V v = hn::Set(tag, x[p]);
    a0 = hn::MulAdd(v, hn::LoadU(tag, keys), a0);
    a1 = hn::MulAdd(v, hn::LoadU(tag, keys + L), a1);
    if constexpr (G > 1) {
      b0 = hn::MulAdd(v, hn::LoadU(tag, keys + panel), b0);
      b1 = hn::MulAdd(v, hn::LoadU(tag, keys + panel + L), b1);
    }
    if constexpr (G > 2) {
      c0 = hn::MulAdd(v, hn::LoadU(tag, keys + 2 * panel), c0);
      c1 = hn::MulAdd(v, hn::LoadU(tag, keys + 2 * panel + L), c1);
    }
    if constexpr (G > 3) {
      d0 = hn::MulAdd(v, hn::LoadU(tag, keys + 3 * panel), d0);
      d1 = hn::MulAdd(v, hn::LoadU(tag, keys + 3 * panel + L), d1);
    }
    next.ask(2 * G);
  }
  const auto store = [&](int64_t i, V v0, V v1) HWY_ATTR {
    hn::StoreU(v0, tag, to + 2 * i * L);
    hn::StoreU(v1, tag, to + 2 * i * L + L);
  };
  store(0, a0, a1);
  if constexpr (G > 1) store(1, b0, b1);
  if constexpr (G > 2) store(2, c0, c1);
  if constexpr (G > 3) store(3, d0, d1);
}

template <class T>
void scores(const T* x, const T* keys, int64_t d, int64_t panels, T* to, Ahead<T> next) {
  const int64_t W = panel_width<T>();
  for (; panels >= 4; panels -= 4, keys += 4 * d * W, to += 4 * W)
    panels_of_scores<4>(x, keys, d, to, next);
  if (panels == 3) return panels_of_scores<3>(x, keys, d, to, next);
  if (panels == 2) return panels_of_scores<2>(x, keys, d, to, next);
  if (panels == 1) panels_of_scores<1>(x, keys, d, to, next);
}

/// y (d) = s (n) times values (n, d), as product() sums them, and the last row added by itself.
template <class T>
void mix_values(const T* HWY_RESTRICT s, int64_t n, const T* HWY_RESTRICT values, int64_t panel,
                int64_t d, T factor, T* HWY_RESTRICT y, Ahead<T> next) {
  const hn::ScalableTag<T> tag;
  const int64_t L = int64_t(hn::Lanes(tag)), W = 2 * L;
  const auto zero = hn::Zero(tag), share = hn::Set(tag, factor);
  HWY_ALIGN T edge[2 * hn::MaxLanes(hn::ScalableTag<T>())];
  for (int64_t c = 0; c < d; c += W, values += panel) {
    auto sum0 = zero, sum1 = zero;
    const T* row = values;
    for (int64_t i = 0; i + 1 < n; ++i, row += W) {
      const auto v = hn::Set(tag, s[i]);
      sum0 = hn::MulAdd(v, hn::LoadU(tag, row), sum0);
      sum1 = hn::MulAdd(v, hn::LoadU(tag, row + L), sum1);
      next.ask(2);
    }
    const auto v = hn::Set(tag, s[n - 1]);
    auto own0 = hn::MulAdd(v, hn::LoadU(tag, row), zero),
         own1 = hn::MulAdd(v, hn::LoadU(tag, row + L), zero);
    if (n > 1) {
      own0 = hn::Add(own0, sum0);
      own1 = hn::Add(own1, sum1);
    }
    T* const to = c + W <= d ? y + c : edge;
    hn::StoreU(hn::Mul(own0, share), tag, to);
    hn::StoreU(hn::Mul(own1, share), tag, to + L);
    if (to == edge) std::copy_n(edge, d - c, y + c);
  }
}

/// The keys that a text reads, from a panel on.
template <class T>
Ahead<T> keys_of(const DecodingText<T>& text, int64_t d) {
  const int64_t W = panel_width<T>();
  return {text.keys + text.first / W * W * d, text.keys + (text.past / W + 1) * W * d};
}
template <class T>
Ahead<T> values_of(const DecodingText<T>& text) {
  const int64_t W = panel_width<T>();
  return {text.values + text.first * W, text.values + (text.past + 1) * W};
}

template <class T>
void decode(const DecodingHead<T>& head, const DecodingText<T>* texts, int64_t count, T* memory) {
  const int64_t d = head.width, W = panel_width<T>();
  const T scale = T(1 / std::sqrt(double(d)));
  int64_t most = 0, keys = 0;
  for (int64_t i = 0; i < count; ++i) {
    most = std::max(most, texts[i].past - texts[i].first + 1);
    keys = std::max(keys, texts[i].past + 1);
  }
  const DecodingScratch<T> s(memory, count, most, keys, d);
  for (int64_t i = 0; i < count; ++i) {
    biased<T>({texts[i].q, d, 1}, head.content_bias, scale, 1, d, s.content + i * d);
    biased<T>({texts[i].q, d, 1}, head.position_bias, scale, 1, d, s.place + i * d);
  }
  const int64_t far = (head.rows - most) / W * W;  // the first column that any of them needs
  product<T>(count, head.rows - far, d, {s.place, d, 1}, head.positions + far * d, d * W,
             s.by_position, s.row, false);
  for (int64_t i = 0; i < count; ++i) {
    const DecodingText<T>& text = texts[i];
    put_own(text, d);
    const int64_t n = text.past - text.first + 1, from = text.first / W * W;
    scores(s.content + i * d, text.keys + from * d, d, text.past / W + 1 - from / W, s.scores,
           values_of(text));
    T* const score = s.scores + text.first - from;
    const T top = add_and_max(score, s.by_position + i * s.row + head.rows - n - far, n);
    const T sum = exp_and_sum<T>(score, nullptr, top, n);
    mix_values(score, n, text.values + text.first * W, text.panel, d, T(1) / sum, text.y,
               i + 1 < count ? keys_of(texts[i + 1], d) : Ahead<T>());
  }
}

int64_t scratch_float(int64_t texts, int64_t rows, int64_t keys, int64_t width) {
  return DecodingScratch<float>(nullptr, texts, rows, keys, width).size;
}
int64_t scratch_double(int64_t texts, int64_t rows, int64_t keys, int64_t width) {
  return DecodingScratch<double>(nullptr, texts, rows, keys, width).size;
}
void decode_float(const DecodingHead<float>& head, const DecodingText<float>* texts, int64_t count,
                  float* scratch) {
  decode(head, texts, count, scratch);
}
void decode_double(const DecodingHead<double>& head, const DecodingText<double>* texts,
                   int64_t count, double* scratch) {
  decode(head, texts, count, scratch);
}

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deq::ops {
HWY_EXPORT(scratch_float);
HWY_EXPORT(scratch_double);
HWY_EXPORT(decode_float);
HWY_EXPORT(decode_double);

template <>
int64_t decoding_scratch<float>(int64_t texts, int64_t rows, int64_t keys, int64_t width) {
  return HWY_DYNAMIC_DISPATCH(scratch_float)(texts, rows, keys, width);
}
template <>
int64_t decoding_scratch<double>(int64_t texts, int64_t rows, int64_t keys, int64_t width) {
  return HWY_DYNAMIC_DISPATCH(scratch_double)(texts, rows, keys, width);
}
void decoding_head(const DecodingHead<float>& head, const DecodingText<float>* texts, int64_t count,
                   float* scratch) {
  HWY_DYNAMIC_DISPATCH(decode_float)(head, texts, count, scratch);
}
void decoding_head(const DecodingHead<double>& head, const DecodingText<double>* texts,
                   int64_t count, double* scratch) {
  HWY_DYNAMIC_DISPATCH(decode_double)(head, texts, count, scratch);
}
}  // namespace deq::ops
#endif
