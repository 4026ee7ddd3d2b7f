#include "deq/cells/tcn.h"

#include <ATen/ATen.h>

#include "deq/cells/dropout.h"

namespace deq {

using at::Tensor;

std::shared_ptr<Cell> Tcn::make(const CellPlace& place) const {
  return std::make_shared<TcnCell>(*this, place.level);
}

TcnCell::TcnCell(const Tcn& options, int64_t level) : options_(options), dilation_(1) {
  validate(options, "Tcn");
  DEQ_CHECK(level >= 0 && level <= 20, "TCN of depth {}; expected at most 21", level + 1);
  dilation_ = int64_t(1) << level;
  const int64_t D = options.width;
  for (auto* linear : {&first_, &second_}) {
    *linear =
        register_module(linear == &first_ ? "first" : "second",
                        std::make_shared<Linear>(D * options.kernel, D, true, options.weight_norm));
  }
  initialise(0.02);
}

void TcnCell::initialise(double std) {
  first_->initialise(std);
  second_->initialise(std);
}

void TcnCell::forget(History& history, const std::vector<int64_t>& rows, int64_t kept) const {
  if (kept == 0) Cell::forget(history, rows, 0);
}

struct TcnCell::Level {
  int64_t kernel, dilation;
  Tensor first, second;  // (D, D, K)
  Tensor first_bias, second_bias;
  Tensor first_mask, second_mask;  // (B, D, 1) or undefined
  Tensor past;                     // (B, M, D) or undefined
  std::vector<int64_t> hidden;     // of the past

  /// y (B, D, N), zero where a sample has no past.
  Tensor present(const Tensor& y) const {
    if (hidden.empty()) return y;
    const Tensor none = at::tensor(hidden, at::kLong).to(y.device()).view({-1, 1, 1});
    return y.masked_fill(at::arange(y.size(2), none.options()) < none, 0);
  }

  /// y (B, D, N) -> (B, D, N), zeros before it
  Tensor layer(const Tensor& y, const Tensor& weight, const Tensor& bias,
               const Tensor& mask) const {
    const Tensor padded = at::constant_pad_nd(y, {dilation * (kernel - 1), 0});
    return masked(at::conv1d(padded, weight, bias, 1, "valid", dilation).relu(), mask);
  }
  Tensor operator()(const Tensor& z) const {
    const Tensor y = (past.defined() ? at::cat({past, z}, 1) : z).transpose(1, 2);
    const Tensor inner = present(layer(present(y), first, first_bias, first_mask));
    const Tensor all = layer(inner, second, second_bias, second_mask).transpose(1, 2);
    const int64_t T = z.size(1);
    return (z + all.narrow(1, all.size(1) - T, T)).relu().contiguous();
  }
};

std::vector<Bound> TcnCell::bind_levels(const Tensor& x, const std::vector<History>& levels) {
  check_bound_shapes("TcnCell", x, options_.width, options_.width, levels);
  const int64_t B = x.size(0), D = options_.width, K = options_.kernel;
  const int64_t seen = 2 * dilation_ * (K - 1);
  const auto mask = [&] { return dropout_mask({B, D, 1}, options_.dropout, is_training(), x); };
  const Level shared{K,
                     dilation_,
                     first_->weight().view({D, D, K}),
                     second_->weight().view({D, D, K}),
                     first_->bias(),
                     second_->bias(),
                     mask(),
                     mask(),
                     {}};
  std::vector<Bound> bound;
  for (const History& history : levels) {
    auto level = std::make_shared<Level>(shared);
    level->past = history.z;
    level->hidden = history.hidden;
    Bound f;
    f.f = Map([level](const Tensor& z) { return (*level)(z); }, {});
    f.extend = [level, seen](const Tensor& z, int64_t length) {
      if (length == 0) return History{};
      const int64_t all = (level->past.defined() ? level->past.size(1) : 0) + z.size(1);
      return History{.z = latest(level->past, z, seen),
                     .hidden = still_hidden(level->hidden, all - std::min(all, seen))};
    };
    bound.push_back(std::move(f));
  }
  return bound;
}

}  // namespace deq
