#include "deq/ops/trellis_step_cpu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <c10/core/GradMode.h>

#include <algorithm>

#include "deq/ops/open_rows.h"
#include "deq/ops/packed.h"
#include "deq/ops/relative_attention_cpu.h"
#include "deq/ops/tasks.h"
#include "deq/ops/trellis_kernel.h"
#include "deq/ops/weight_gradient.h"

namespace deq::ops {

using at::Tensor;

PackedTrellis::PackedTrellis(const Tensor& weight, int64_t kernel, WeightType type)
    : weight_(weight.detach()), unchanged_({{"the weight", weight}}), kernel_(kernel) {
  const int64_t H = weight.size(0) / 4;
  std::vector<Tensor> panels;
  for (int64_t k = 0; k < kernel; ++k) {
    for (int64_t q = 0; q < 4; ++q)
      panels.push_back(packed_weight(weight_.narrow(0, q * H, H).narrow(1, k * H, H), false, type));
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

TrellisWeight trellis_weight(const Tensor& weight, int64_t kernel, WeightType type) {
  TrellisWeight found{weight_as(weight, type), nullptr};
  if (attention_on_cpu(found.weight))
    found.packed = std::make_shared<const PackedTrellis>(found.weight, kernel, type);
  return found;
}

namespace {

/// The sizes of a state, and of what its taps read before and behind it.
struct Sizes {
  int64_t B, T, H, K, d, A, P;  // A = d ahead, P = d (K - 1) - A
  Sizes(const TrellisContext& c, const Tensor& z)
      : B(z.size(0)),
        T(z.size(1)),
        H(z.size(2) / 2),
        K(c.kernel),
        d(c.dilation),
        A(c.dilation * c.ahead),
        P(c.dilation * (c.kernel - 1) - A) {}
  /// Rows of h, and of the gates' gradients.
  int64_t padded() const { return P + T + A; }
  /// Samples of one position go through the kernels as rows of one sample, so that the weights are
  /// read once for all of them.
  bool flat() const { return T == 1; }
  int64_t samples() const { return flat() ? 1 : B; }
  int64_t rows() const { return flat() ? B : T; }
  /// Products that a row and a block of units are.
  template <class T>
  int64_t work() const {
    return K * H * 4 * panel_width<T>();
  }
};

/// The rows of sample b.
template <class T>
TrellisRows<T> rows_of(const TrellisContext& c, const TrellisKept& k, int64_t b) {
  const Sizes s(c, k.z);
  const int64_t H = s.H;
  TrellisRows<T> rows;
  rows.units = H;
  rows.kernel = s.K;
  rows.h = k.h.data_ptr<T>() + b * s.padded() * H;
  rows.h_row = s.flat() ? s.padded() * H : H;
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

/// The open rows of every sample (of flat ones all), in pieces for the threads.
std::vector<Piece> pieces_of(const Sizes& s, int64_t unit_blocks, const OpenRows& open) {
  // Rows that stay in the second-level cache beside a panel, in tiles of six.
  constexpr int64_t kRows = 66;
  std::vector<Piece> rows;
  for (int64_t b = 0; b < s.samples(); ++b) {
    const int64_t from = s.flat() ? 0 : open.begin(b), to = s.flat() ? s.rows() : open.end(b);
    const int64_t left = to - from, blocks = (left + kRows - 1) / kRows;
    if (left <= 0) continue;
    const int64_t length = ((left + blocks - 1) / blocks + 5) / 6 * 6;
    for (int64_t i = from; i < to; i += length)
      rows.push_back({b, i, std::min(to, i + length), 0, unit_blocks});
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

/// Runs f(piece, scratch) over the pieces, `work` products for each row and block of units.
template <class T, class F>
void for_pieces(const std::vector<Piece>& pieces, int64_t work, const F& f) {
  int64_t longest = 0;
  for (const Piece& piece : pieces) longest = std::max(longest, piece.end - piece.begin);
  int64_t rows = 0;  // of all units
  for (const Piece& piece : pieces) rows += (piece.end - piece.begin) * (piece.last - piece.first);
  run_tasks<T>(
      int64_t(pieces.size()), trellis_scratch<T>(longest),
      [&](int64_t i, T* scratch) { f(pieces[size_t(i)], scratch); }, rows * work);
}

template <class T>
int64_t unit_blocks(int64_t H) {
  return (H + panel_width<T>() - 1) / panel_width<T>();
}

/// h (B, P + T + A, H), masked: those of the past, of z, and zeros; with `resumed`, of open rows
/// alone.
template <class T>
void pad_h(const TrellisContext& c, const Sizes& s, const TrellisKept& k, const OpenRows& open,
           bool resumed) {
  const int64_t H = s.H, M = c.past.size(1);
  T* out = k.h.data_ptr<T>();
  const T *past = c.past.data_ptr<T>(), *z = k.z.data_ptr<T>();
  const T* mask = c.hidden_mask.defined() ? c.hidden_mask.data_ptr<T>() : nullptr;
  at::parallel_for(0, s.B * s.padded(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t b = row / s.padded(), t = row % s.padded() - s.P;
      if (resumed && (t < open.begin(b) || t >= s.T)) continue;
      T* to = out + row * H;
      if (t >= s.T) {
        std::fill_n(to, H, T(0));
        continue;
      }
      const T* from = t < 0 ? past + (b * M + M + t) * 2 * H : z + (b * s.T + t) * 2 * H;
      for (int64_t u = 0; u < H; ++u) to[u] = mask ? from[u] * mask[b * H + u] : from[u];
    }
  });
}

/// Leaves in k what f(k.z) gives. Of rows that are not open k holds it already.
template <class T>
void forward(const TrellisContext& c, TrellisKept& k, bool taped, const OpenRows& open) {
  const Sizes s(c, k.z);
  const auto options = k.z.options().requires_grad(false);
  const bool resumed = k.f.defined();
  k.f = resumed ? with_closed_rows<T>(k.f, open, k.pool) : at::empty(k.z.sizes(), options);
  if (!resumed) k.h = at::empty({s.B, s.padded(), s.H}, options);
  if (taped) k.gates = at::empty({s.B, s.T, 4 * s.H}, options);
  pad_h<T>(c, s, k, open, resumed);
  const Tensor& weights = c.weight.packed->forward();
  for_pieces<T>(pieces_of(s, unit_blocks<T>(s.H), open), s.work<T>(),
                [&](const Piece& p, T* scratch) {
                  TrellisRows<T> rows = rows_of<T>(c, k, p.sample);
                  rows.weights = panels_of<T>(weights);
                  rows.panels = numbers_in(weights);
                  trellis_rows(rows, p.begin, p.end, p.first, p.last, scratch);
                });
}

/// Leaves in `passed` the gradients of z and of the gates from df. Of rows that are not open it
/// holds them already.
template <class T>
void backward_of_z(const TrellisContext& c, const TrellisKept& k, const Tensor& df,
                   const OpenRows& open, TrellisPassed& passed) {
  const Sizes s(c, k.z);
  const int64_t H = s.H;
  const auto options = df.options().requires_grad(false);
  if (passed.z.defined()) {
    passed.z = with_closed_rows<T>(passed.z, open, passed.pool);
  } else {
    passed.z = passed.pool.empty(k.z.sizes(), options);
    passed.gates = at::empty({s.B, s.padded(), 4 * H}, options);
    passed.gates.narrow(1, 0, s.A).zero_();
    passed.gates.narrow(1, s.A + s.T, s.P).zero_();
    passed.c = at::empty({s.B, s.T, H}, options);
  }
  const Tensor& weights = c.weight.packed->backward();
  const auto at_sample = [&](int64_t b) {
    TrellisGradients<T> to;
    to.df = df.data_ptr<T>() + b * s.T * 2 * H;
    if (c.hidden_mask.defined()) to.mask = c.hidden_mask.data_ptr<T>() + b * H;
    to.mask_row = s.flat() ? H : 0;
    to.gates = passed.gates.data_ptr<T>() + (b * s.padded() + s.A) * 4 * H;
    to.row = s.flat() ? s.padded() * 4 * H : 4 * H;
    to.ahead = s.A * 4 * H;
    to.tap = s.d * 4 * H;
    to.c = passed.c.data_ptr<T>() + b * s.T * H;
    to.z = passed.z.data_ptr<T>() + b * s.T * 2 * H;
    return to;
  };
  for_pieces<T>(pieces_of(s, 1, open), 32 * H, [&](const Piece& p, T*) {
    trellis_gates_backward(rows_of<T>(c, k, p.sample), at_sample(p.sample), p.begin, p.end);
  });
  for_pieces<T>(
      pieces_of(s, unit_blocks<T>(H), open), s.work<T>(), [&](const Piece& p, T* scratch) {
        TrellisRows<T> rows = rows_of<T>(c, k, p.sample);
        rows.weights = panels_of<T>(weights);
        rows.panels = numbers_in(weights);
        trellis_rows_backward(rows, at_sample(p.sample), p.begin, p.end, p.first, p.last, scratch);
      });
  // The c before position t is z's at t - 1.
  passed.z.narrow(1, 0, s.T - 1).narrow(2, H, H).copy_(passed.c.narrow(1, 1, s.T - 1));
  passed.z.narrow(1, s.T - 1, 1).narrow(2, H, H).zero_();
}

template <class T>
TrellisGiven backward(const TrellisContext& c, const TrellisKept& k, const Tensor& df, bool all) {
  const Sizes s(c, k.z);
  const int64_t H = s.H;
  TrellisPassed passed;
  backward_of_z<T>(c, k, df, OpenRows(s.B, s.T), passed);
  TrellisGiven found;
  found.z = passed.z;
  if (!all) return found;
  found.injected = passed.gates.narrow(1, s.A, s.T).contiguous();
  std::vector<Tensor> taps;
  for (int64_t tap = 0; tap < s.K; ++tap) taps.push_back(k.h.narrow(1, tap * s.d, s.T));
  found.weight =
      weight_gradient(found.injected.view({-1, 4 * H}), at::cat(taps, 2).view({-1, s.K * H}));
  return found;
}

void forward_any(const TrellisContext& c, TrellisKept& k, bool taped, const OpenRows& open) {
  if (k.z.scalar_type() == at::kFloat) {
    forward<float>(c, k, taped, open);
  } else {
    forward<double>(c, k, taped, open);
  }
}

}  // namespace

TrellisKept trellis_forward_cpu(const TrellisContext& context, const Tensor& z, bool taped) {
  TrellisKept kept{.z = z};
  forward_any(context, kept, taped, OpenRows(z.size(0), z.size(1)));
  return kept;
}

Tensor trellis_resume_cpu(const TrellisContext& context, const Tensor& z,
                          const std::vector<int64_t>& done, TrellisKept& kept) {
  kept.z = z;
  forward_any(context, kept, false, OpenRows::without_first(z.size(0), z.size(1), done));
  return kept.f;
}

Tensor trellis_resume_backward_cpu(const TrellisContext& context, const TrellisKept& kept,
                                   const Tensor& df, const std::vector<int64_t>& done,
                                   TrellisPassed& passed) {
  c10::NoGradGuard no_tape;
  const OpenRows open = OpenRows::without_last(df.size(0), df.size(1), done);
  if (df.scalar_type() == at::kFloat) {
    backward_of_z<float>(context, kept, df, open, passed);
  } else {
    backward_of_z<double>(context, kept, df, open, passed);
  }
  return passed.z;
}

TrellisGiven trellis_backward_cpu(const TrellisContext& context, const TrellisKept& kept,
                                  const Tensor& df, bool all) {
  c10::NoGradGuard no_tape;
  return df.scalar_type() == at::kFloat ? backward<float>(context, kept, df, all)
                                        : backward<double>(context, kept, df, all);
}

}  // namespace deq::ops
