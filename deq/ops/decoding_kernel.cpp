// Compiled once per SIMD target (Highway).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deq/ops/decoding_kernel.cpp"
#include "deq/ops/decoding_kernel.h"

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

// Texts whose values are mixed at a time.
constexpr int64_t kGroup = 4;

/// Scratch of one head: the queries with either bias, their scores by position, and by content
/// those of a group.
template <class T>
struct DecodingScratch {
  T *content, *place, *by_position, *scores;
  int64_t row, keys, size;  // of by_position; of a text's scores

  DecodingScratch(T* memory, int64_t texts, int64_t rows, int64_t most, int64_t width) {
    Pieces<T> pieces{memory};
    const int64_t W = panel_width<T>();
    row = rows + W;
    content = pieces.take(texts * width);
    place = pieces.take(texts * width);
    by_position = pieces.take(texts * row);
    keys = (most + 2 * W - 1) / W * W;
    scores = pieces.take(kGroup * keys);
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

/// to (G panels of columns) = x (d) times G panels of keys: as product() sums them.
template <int G, class T>
HWY_INLINE void panels_of_scores(const T* HWY_RESTRICT x, const T* HWY_RESTRICT keys, int64_t d,
                                 T* HWY_RESTRICT to) {
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
void scores(const T* x, const T* keys, int64_t d, int64_t panels, T* to) {
  const int64_t W = panel_width<T>();
  for (; panels >= 4; panels -= 4, keys += 4 * d * W, to += 4 * W)
    panels_of_scores<4>(x, keys, d, to);
  if (panels == 3) return panels_of_scores<3>(x, keys, d, to);
  if (panels == 2) return panels_of_scores<2>(x, keys, d, to);
  if (panels == 1) panels_of_scores<1>(x, keys, d, to);
}

/// What is left of a text once its scores are known: probabilities times `factor` (n), the query's
/// own the last, and the values they belong to.
template <class T>
struct Mixed {
  const T *shares = nullptr, *values = nullptr;
  int64_t n = 0, panel = 0;
  T factor = 0;
  T* y = nullptr;
};

/// Columns c .. c + W - 1 of y = factor (shares times values), of up to four texts at a time, whose
/// sums hide each other's delay: each sum as product() has it, the own row added by itself.
template <int G, class T>
HWY_INLINE void mix_values(const Mixed<T>* texts, int64_t c, int64_t d) {
  const hn::ScalableTag<T> tag;
  const int64_t L = int64_t(hn::Lanes(tag)), W = 2 * L;
  using V = hn::Vec<decltype(tag)>;
  const V zero = hn::Zero(tag);
  V a0 = zero, a1 = zero, b0 = zero, b1 = zero, c0 = zero, c1 = zero, d0 = zero, d1 = zero;
  const T* rows[G];
  int64_t both = texts[0].n - 1;
  for (int t = 0; t < G; ++t) {
    rows[t] = texts[t].values + c / W * texts[t].panel;
    both = std::min(both, texts[t].n - 1);
  }
  const auto add = [&](int t, int64_t from, int64_t to, V& s0, V& s1) HWY_ATTR {
    for (int64_t i = from; i < to; ++i) {
      const V v = hn::Set(tag, texts[t].shares[i]);
      s0 = hn::MulAdd(v, hn::LoadU(tag, rows[t] + i * W), s0);
      s1 = hn::MulAdd(v, hn::LoadU(tag, rows[t] + i * W + L), s1);
    }
  };
  for (int64_t i = 0; i < both; ++i) {
    add(0, i, i + 1, a0, a1);
    if constexpr (G > 1) add(1, i, i + 1, b0, b1);
    if constexpr (G > 2) add(2, i, i + 1, c0, c1);
    if constexpr (G > 3) add(3, i, i + 1, d0, d1);
  }
  const auto finish = [&](int t, V s0, V s1) HWY_ATTR {
    const Mixed<T>& text = texts[t];
    add(t, both, text.n - 1, s0, s1);
    V own0 = zero, own1 = zero;
    add(t, text.n - 1, text.n, own0, own1);
    if (text.n > 1) {
      own0 = hn::Add(own0, s0);
      own1 = hn::Add(own1, s1);
    }
    const V factor = hn::Set(tag, text.factor);
    HWY_ALIGN T edge[2 * hn::MaxLanes(hn::ScalableTag<T>())];
    T* const to = c + W <= d ? text.y + c : edge;
    hn::StoreU(hn::Mul(own0, factor), tag, to);
    hn::StoreU(hn::Mul(own1, factor), tag, to + L);
    if (to == edge) std::copy_n(edge, d - c, text.y + c);
  };
  finish(0, a0, a1);
  if constexpr (G > 1) finish(1, b0, b1);
  if constexpr (G > 2) finish(2, c0, c1);
  if constexpr (G > 3) finish(3, d0, d1);
}

template <class T>
void mix_group(const Mixed<T>* texts, int64_t count, int64_t d) {
  for (int64_t c = 0; c < d; c += panel_width<T>()) {
    if (count == 4) mix_values<4>(texts, c, d);
    if (count == 3) mix_values<3>(texts, c, d);
    if (count == 2) mix_values<2>(texts, c, d);
    if (count == 1) mix_values<1>(texts, c, d);
  }
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
    put_own(texts[i], d);
  }
  const int64_t far = (head.rows - most) / W * W;  // the first column that any of them needs
  product<T>(count, head.rows - far, d, {s.place, d, 1}, head.positions + far * d, d * W,
             s.by_position, s.row, false);
  Mixed<T> group[kGroup];
  for (int64_t i = 0; i < count; ++i) {
    const DecodingText<T>& text = texts[i];
    const int64_t n = text.past - text.first + 1, from = text.first / W * W, at = i % kGroup;
    T* const all = s.scores + at * s.keys;
    scores(s.content + i * d, text.keys + from * d, d, text.past / W + 1 - from / W, all);
    T* const score = all + text.first - from;
    const T top = add_and_max(score, s.by_position + i * s.row + head.rows - n - far, n);
    const T sum = exp_and_sum<T>(score, nullptr, top, n);
    group[at] = {score, text.values + text.first * W, n, text.panel, T(1) / sum, text.y};
    if (at + 1 == kGroup || i + 1 == count) mix_group(group, at + 1, d);
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
