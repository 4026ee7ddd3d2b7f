#include "deq/ops/trellis_step_cpu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <memory>

#include "deq/ops/packed.h"
#include "deq/ops/relative_attention_cpu.h"
#include "deq/ops/trellis_kernel.h"

namespace deq::ops {

using at::Tensor;

PackedTrellis::PackedTrellis(const Tensor& weight, int64_t kernel)
    : weight_(weight.detach()), kernel_(kernel) {
  const int64_t H = weight.size(0) / 4;
  std::vector<Tensor> panels;
  for (int64_t k = 0; k < kernel; ++k) {
    for (int64_t q = 0; q < 4; ++q)
      panels.push_back(packed_weight(weight_.narrow(0, q * H, H).narrow(1, k * H, H), false));
  }
  forward_ = at::stack(panels);
}

const Tensor& PackedTrellis::backward() const {
  std::call_once(once_, [this] {
    const int64_t H = weight_.size(0) / 4;
    std::vector<Tensor> panels;
    for (int64_t k = 0; k < kernel_; ++k)
      panels.push_back(packed_weight(weight_.narrow(1, k * H, H), true));
    backward_ = at::stack(panels);
  });
  return backward_;
}

TrellisWeight trellis_weight(Tensor weight, int64_t kernel) {
  TrellisWeight found{std::move(weight), nullptr};
  if (attention_on_cpu(found.weight))
    found.packed = std::make_shared<const PackedTrellis>(found.weight, kernel);
  return found;
}

namespace {

/// The sizes of a state, and of what stands before it.
struct Sizes {
  int64_t B, T, H, K, d, P;  // P = d (K - 1)
  Sizes(const TrellisContext& c, const Tensor& z)
      : B(z.size(0)),
        T(z.size(1)),
        H(z.size(2) / 2),
        K(c.kernel),
        d(c.dilation),
        P(c.dilation * (c.kernel - 1)) {}
  /// Samples of one position go through the kernels as rows of one sample, so that the weights are
  /// read once for all of them.
  bool flat() const { return T == 1; }
  int64_t samples() const { return flat() ? 1 : B; }
  int64_t rows() const { return flat() ? B : T; }
};

/// The rows of sample b.
template <class T>
TrellisRows<T> rows_of(const TrellisContext& c, const TrellisKept& k, int64_t b) {
  const Sizes s(c, k.z);
  const int64_t H = s.H;
  TrellisRows<T> rows;
  rows.units = H;
  rows.kernel = s.K;
  rows.h = k.h.data_ptr<T>() + b * (s.P + s.T) * H;
  rows.h_row = s.flat() ? (s.P + 1) * H : H;
  rows.tap = s.d * H;
  const int64_t past_row = c.past.size(1) * 2 * H;
  rows.c_first = c.past.data_ptr<T>() + (b + 1) * past_row - H;
  rows.c = s.flat() ? rows.c_first + past_row : k.z.data_ptr<T>() + b * s.T * 2 * H + H;
  rows.c_row = s.flat() ? past_row : 2 * H;
  rows.injected = c.injected.data_ptr<T>() + b * s.T * 4 * H;
  rows.f = k.f.data_ptr<T>() + b * s.T * 2 * H;
  if (k.gates.defined()) rows.gates = k.gates.data_ptr<T>() + b * s.T * 4 * H;
  return rows;
}

/// Some rows of one sample and some blocks of units.
struct Piece {
  int64_t sample, begin, end, first, last;
};

/// The rows from done[b] on of every sample b (empty: all), in pieces for the threads.
std::vector<Piece> pieces_of(const Sizes& s, int64_t unit_blocks,
                             const std::vector<int64_t>& done) {
  // Rows that stay in the second-level cache beside a panel, in tiles of six.
  constexpr int64_t kRows = 66;
  std::vector<Piece> rows;
  for (int64_t b = 0; b < s.samples(); ++b) {
    const int64_t from = done.empty() || s.flat() ? 0 : done[size_t(b)];
    const int64_t left = s.rows() - from, blocks = (left + kRows - 1) / kRows;
    if (left == 0) continue;
    const int64_t length = ((left + blocks - 1) / blocks + 5) / 6 * 6;
    for (int64_t i = from; i < s.rows(); i += length)
      rows.push_back({b, i, std::min(s.rows(), i + length), 0, unit_blocks});
  }
  const int64_t wanted = 4 * at::get_num_threads(), have = int64_t(rows.size());
  if (have == 0 || have >= wanted) return rows;
  const int64_t parts = std::min(unit_blocks, (wanted + have - 1) / have);
  std::vector<Piece> pieces;
  for (int64_t part = 0; part < parts; ++part) {
    for (Piece piece : rows) {
      piece.first = unit_blocks * part / parts;
      piece.last = unit_blocks * (part + 1) / parts;
      pieces.push_back(piece);
    }
  }
  return pieces;
}

/// Runs f(piece, scratch) over the pieces.
template <class T, class F>
void for_pieces(const std::vector<Piece>& pieces, const F& f) {
  int64_t longest = 0;
  for (const Piece& piece : pieces) longest = std::max(longest, piece.end - piece.begin);
  at::parallel_for(0, int64_t(pieces.size()), 1, [&](int64_t begin, int64_t end) {
    const auto scratch = std::make_unique_for_overwrite<T[]>(size_t(trellis_scratch<T>(longest)));
    for (int64_t i = begin; i < end; ++i) f(pieces[size_t(i)], scratch.get());
  });
}

template <class T>
int64_t unit_blocks(int64_t H) {
  return (H + panel_width<T>() - 1) / panel_width<T>();
}

/// h (B, P + T, H), masked: those of the past and of z. Of the past and of rows that are done it is
/// there where `done` says so.
template <class T>
void pad_h(const TrellisContext& c, const Sizes& s, const TrellisKept& k,
           const std::vector<int64_t>& done) {
  const int64_t H = s.H, M = c.past.size(1);
  T* out = k.h.data_ptr<T>();
  const T *past = c.past.data_ptr<T>(), *z = k.z.data_ptr<T>();
  const T* mask = c.hidden_mask.defined() ? c.hidden_mask.data_ptr<T>() : nullptr;
  at::parallel_for(0, s.B * (s.P + s.T), 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / (s.P + s.T), t = row % (s.P + s.T) - s.P;
      if (!done.empty() && t < done[size_t(b)]) continue;
      const T* from = t < 0 ? past + (b * M + M + t) * 2 * H : z + (b * s.T + t) * 2 * H;
      T* to = out + row * H;
      for (int64_t u = 0; u < H; ++u) to[u] = mask ? from[u] * mask[b * H + u] : from[u];
    }
  });
}

/// Leaves in k what f(k.z) gives. Of rows that are done k holds it already.
template <class T>
void forward(const TrellisContext& c, TrellisKept& k, bool taped,
             const std::vector<int64_t>& done) {
  const Sizes s(c, k.z);
  const auto options = k.z.options().requires_grad(false);
  const Tensor before = k.f;
  k.f = at::empty(k.z.sizes(), options);
  const int64_t row = 2 * s.H;
  for (size_t b = 0; b < done.size(); ++b)
    std::copy_n(before.data_ptr<T>() + int64_t(b) * s.T * row, done[b] * row,
                k.f.data_ptr<T>() + int64_t(b) * s.T * row);
  if (!k.h.defined()) k.h = at::empty({s.B, s.P + s.T, s.H}, options);
  if (taped) k.gates = at::empty({s.B, s.T, 4 * s.H}, options);
  pad_h<T>(c, s, k, done);
  const Tensor& weights = c.weight.packed->forward();
  for_pieces<T>(pieces_of(s, unit_blocks<T>(s.H), done), [&](const Piece& p, T* scratch) {
    TrellisRows<T> rows = rows_of<T>(c, k, p.sample);
    rows.weights = weights.data_ptr<T>();
    rows.panels = weights.size(1);
    trellis_rows(rows, p.begin, p.end, p.first, p.last, scratch);
  });
}

template <class T>
TrellisGiven backward(const TrellisContext& c, const TrellisKept& k, const Tensor& df, bool all) {
  const Sizes s(c, k.z);
  const int64_t H = s.H;
  const auto options = df.options().requires_grad(false);
  const Tensor gates = at::empty({s.B, s.T + s.P, 4 * H}, options);
  gates.narrow(1, s.T, s.P).zero_();
  const Tensor before = at::empty({s.B, s.T, H}, options);
  TrellisGiven found;
  found.z = at::empty(k.z.sizes(), options);
  const Tensor& weights = c.weight.packed->backward();
  const auto at_sample = [&](int64_t b) {
    TrellisGradients<T> to;
    to.df = df.data_ptr<T>() + b * s.T * 2 * H;
    if (c.hidden_mask.defined()) to.mask = c.hidden_mask.data_ptr<T>() + b * H;
    to.mask_row = s.flat() ? H : 0;
    to.gates = gates.data_ptr<T>() + b * (s.T + s.P) * 4 * H;
    to.row = s.flat() ? (1 + s.P) * 4 * H : 4 * H;
    to.tap = s.d * 4 * H;
    to.c = before.data_ptr<T>() + b * s.T * H;
    to.z = found.z.data_ptr<T>() + b * s.T * 2 * H;
    return to;
  };
  for_pieces<T>(pieces_of(s, 1, {}), [&](const Piece& p, T*) {
    trellis_gates_backward(rows_of<T>(c, k, p.sample), at_sample(p.sample), p.begin, p.end);
  });
  for_pieces<T>(pieces_of(s, unit_blocks<T>(H), {}), [&](const Piece& p, T* scratch) {
    TrellisRows<T> rows = rows_of<T>(c, k, p.sample);
    rows.weights = weights.data_ptr<T>();
    rows.panels = weights.size(1);
    trellis_rows_backward(rows, at_sample(p.sample), p.begin, p.end, p.first, p.last, scratch);
  });
  // The c before position t is z's at t - 1.
  found.z.narrow(1, 0, s.T - 1).narrow(2, H, H).copy_(before.narrow(1, 1, s.T - 1));
  found.z.narrow(1, s.T - 1, 1).narrow(2, H, H).zero_();
  if (!all) return found;
  found.injected = gates.narrow(1, 0, s.T).contiguous();
  const Tensor sums = found.injected.view({-1, 4 * H});
  std::vector<Tensor> taps;
  for (int64_t tap = 0; tap < s.K; ++tap)
    taps.push_back(at::mm(sums.t(), k.h.narrow(1, tap * s.d, s.T).reshape({-1, H})));
  found.weight = at::cat(taps, 1);
  return found;
}

void forward_any(const TrellisContext& c, TrellisKept& k, bool taped,
                 const std::vector<int64_t>& done) {
  if (k.z.scalar_type() == at::kFloat) {
    forward<float>(c, k, taped, done);
  } else {
    forward<double>(c, k, taped, done);
  }
}

}  // namespace

TrellisKept trellis_forward_cpu(const TrellisContext& context, const Tensor& z, bool taped) {
  TrellisKept kept{.z = z};
  forward_any(context, kept, taped, {});
  return kept;
}

Tensor trellis_resume_cpu(const TrellisContext& context, const Tensor& z,
                          const std::vector<int64_t>& done, TrellisKept& kept) {
  kept.z = z;
  forward_any(context, kept, false, kept.f.defined() ? done : std::vector<int64_t>());
  return kept.f;
}

TrellisGiven trellis_backward_cpu(const TrellisContext& context, const TrellisKept& kept,
                                  const Tensor& df, bool all) {
  c10::NoGradGuard no_tape;
  return df.scalar_type() == at::kFloat ? backward<float>(context, kept, df, all)
                                        : backward<double>(context, kept, df, all);
}

}  // namespace deq::ops
