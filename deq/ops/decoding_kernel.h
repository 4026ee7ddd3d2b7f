// The attention of decoding: one query of each of several texts, each behind a past of its own.
#pragma once

#include <cstdint>

namespace deq::ops {

/// One text's part in one head. Keys and values are packed (packed.h) with room for more: `keys`
/// (d, n) and `values` (n, d), n > past; column and row `past` are where the kernel writes those of
/// the query itself.
template <class T>
struct DecodingText {
  const T *q = nullptr, *k = nullptr, *v = nullptr;  // (d)
  T *keys = nullptr, *values = nullptr;
  int64_t panel = 0;            // between the panels of values
  int64_t first = 0, past = 0;  // keys first .. past - 1 are seen, and the query's own
  T* y = nullptr;               // (d)
};

/// What the texts share: `positions` (d, rows) packed, projected positions of the distances
/// rows - 1 .. 0, and the biases (d).
template <class T>
struct DecodingHead {
  int64_t width = 0, rows = 0;  // d
  const T *positions = nullptr, *content_bias = nullptr, *position_bias = nullptr;
};

/// Numbers of scratch memory for `texts` texts of which none sees more than `rows` keys, columns up
/// to `keys`.
template <class T>
int64_t decoding_scratch(int64_t texts, int64_t rows, int64_t keys, int64_t width);

/// y of every text: the same bits as attention_head() gives.
void decoding_head(const DecodingHead<float>& head, const DecodingText<float>* texts, int64_t count,
                   float* scratch);
void decoding_head(const DecodingHead<double>& head, const DecodingText<double>* texts,
                   int64_t count, double* scratch);

}  // namespace deq::ops
