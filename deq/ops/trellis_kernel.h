// The row kernels of the TrellisNet's step: its convolution, one block of units at a time, with the
// four gates of these units while their sums are in the cache.
#pragma once

#include <cstdint>

#include "deq/ops/panels.h"

namespace deq::ops {

/// Positions of one sample, or of several samples that have one position each. H units; a block of
/// units is as wide as a panel (packed.h).
template <class T>
struct TrellisRows {
  int64_t units = 0;   // H
  int64_t kernel = 1;  // K
  /// Packed; forward: W_k^T (H, H) of tap k and gate q (i, o, g, s) at weights + (4 k + q) panels;
  /// backward: W_k (4 H, H) of tap k at weights + k panels.
  Panels<T> weights;
  int64_t panels = 0;  // numbers

  const T* h = nullptr;  // masked; tap k of row t reads the H numbers at h + t h_row + k tap
  int64_t h_row = 0, tap = 0;
  const T *c_first = nullptr, *c = nullptr;  // before row 0; before row t > 0 at c + (t - 1) c_row
  int64_t c_row = 0;
  const T* injected = nullptr;  // (., 4 H)
  T* f = nullptr;               // (., 2 H): h' and c'
  T* gates = nullptr;           // (., 4 H) sigma(i), sigma(o), tanh(g), sigma(s); or none
};

/// Rows begin .. end - 1, blocks of units first .. last - 1: f, and gates where asked for.
void trellis_rows(const TrellisRows<float>& rows, int64_t begin, int64_t end, int64_t first,
                  int64_t last, float* scratch);
void trellis_rows(const TrellisRows<double>& rows, int64_t begin, int64_t end, int64_t first,
                  int64_t last, double* scratch);

/// What the backward kernels of some rows read and write.
template <class T>
struct TrellisGradients {
  const T* df = nullptr;    // (., 2 H)
  const T* mask = nullptr;  // (H) of row t's h at mask + t mask_row, or none
  int64_t mask_row = 0;
  /// Of the gates' sums, (., 4 H), rows `row` apart. Tap k of row t + d (K - 1 - A - k) has read
  /// row t's h: its gradient is gathered from gates - ahead + t row + (K - 1 - k) tap, zeros before
  /// the first row and behind the last.
  T* gates = nullptr;
  int64_t row = 0, tap = 0, ahead = 0;
  T* c = nullptr;  // of the c before each row, (., H)
  T* z = nullptr;  // (., 2 H): its first half is filled
};

/// Rows begin .. end - 1: the gates' sums and c.
void trellis_gates_backward(const TrellisRows<float>& rows, const TrellisGradients<float>& to,
                            int64_t begin, int64_t end);
void trellis_gates_backward(const TrellisRows<double>& rows, const TrellisGradients<double>& to,
                            int64_t begin, int64_t end);

/// Rows begin .. end - 1, blocks of units first .. last - 1: h, from the gates' sums of all rows.
void trellis_rows_backward(const TrellisRows<float>& rows, const TrellisGradients<float>& to,
                           int64_t begin, int64_t end, int64_t first, int64_t last, float* scratch);
void trellis_rows_backward(const TrellisRows<double>& rows, const TrellisGradients<double>& to,
                           int64_t begin, int64_t end, int64_t first, int64_t last,
                           double* scratch);

/// Numbers of scratch memory that any of them needs for `rows` rows.
template <class T>
int64_t trellis_scratch(int64_t rows);

}  // namespace deq::ops
