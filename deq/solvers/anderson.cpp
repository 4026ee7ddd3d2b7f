#include "deq/solvers/anderson.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

#include "deq/ops/rows.h"
#include "deq/solvers/small.h"

namespace deq {
namespace {

using at::Tensor;

/// Where mixtures get nowhere, plain steps may, as in a cell with small weights: they are taken
/// from there on for as long as they shrink the residual, and by more than the mixtures did. Where
/// they shrink it less, mixtures have twice as many evaluations the next time.
class Safeguard {
 public:
  /// From the residual of a row over what it depends on; whether its next step is a plain one.
  bool plain(double residual) {
    if (evaluations_ < 0) {
      begin(residual);
    } else if (plain_ && residual > last_) {
      plain_ = false;
      begin(residual);
    } else if (++evaluations_ >= window_ || residual <= kEnough * first_) {
      judge(residual / first_);
      begin(residual);
    }
    last_ = residual;
    return plain_;
  }

 private:
  static constexpr double kEnough = 0.7;  // of the residual, in a window or sooner

  /// What a window made of the residual.
  void judge(double factor) {
    if (plain_ && factor > of_mixtures_) {
      plain_ = false;
      window_ *= 2;
    } else if (!plain_ && factor > kEnough) {
      plain_ = true;
      of_mixtures_ = factor;
    }
  }

  void begin(double residual) {
    first_ = residual;
    evaluations_ = 0;
  }

  bool plain_ = false;
  int window_ = 4;
  int evaluations_ = -1;  // since the window began; -1: none has
  double first_ = 0, last_ = 0;
  double of_mixtures_ = 0;  // what became of the residual in their last window
};

class AndersonMethod {
 public:
  AndersonMethod(const Anderson& options, const Layout& layout)
      : options_(options), layout_(layout) {
    options_.memory = options.memory_for(layout);
    safeguards_.resize(size_t(layout.rows()));
  }

  Proposal propose(const Iterate& at) {
    const int64_t m = options_.memory;
    const int64_t slot = count_ % m;  // the oldest iterate makes room
    ++count_;
    const Tensor image = options_.mixing == 1.0 ? at.fz : damped(at);
    if (int64_t(residuals_.size()) < m) {
      residuals_.push_back(at.g);
    } else {
      residuals_[size_t(slot)] = at.g;
      images_.erase(images_.begin());
    }
    images_.push_back(image);
    const int64_t held = int64_t(residuals_.size());
    ages_.resize(at.anew.size());
    for (size_t r = 0; r < ages_.size(); ++r)
      ages_[r] = at.anew[r] ? 1 : std::min(ages_[r] + 1, held);
    remember_products(ops::row_dots(residuals_, at.g, at.resting, &at.pool).to(at::kCPU),
                      at.resting, slot);
    const Tensor coefficients = small::least_mixture(
        gram_, layout_,
        {.held = held, .newest = slot, .ridge = options_.ridge, .decay = options_.decay},
        at.resting, mixed(at, slot), &at.pool);
    if (held == 1) return {image, {}};
    by_time(coefficients, slot);
    return {ops::row_mix(coefficients.to(at.g.device()), images_, {}, at.resting, &at.pool), {}};
  }

 private:
  Tensor damped(const Iterate& at) {
    if (!mixing_.defined())
      mixing_ = at::full({at.z.size(0), 1}, options_.mixing, at.z.options().dtype(at::kDouble));
    return ops::row_mix(mixing_, {at.g}, at.z, {}, &at.pool);
  }

  /// Every row's coefficients from the order of slots to that of images_.
  static void by_time(const Tensor& coefficients, int64_t newest) {
    const int64_t held = coefficients.size(1);
    if (newest + 1 == held) return;
    double* row = coefficients.data_ptr<double>();
    for (int64_t r = 0; r < coefficients.size(0); ++r, row += held)
      std::rotate(row, row + newest + 1, row + held);
  }

  /// Iterates that each row mixes: those that it may, or 1, a plain step.
  std::vector<int64_t> mixed(const Iterate& at, int64_t slot) {
    std::vector<int64_t> counts = ages_;
    const int64_t m = gram_.size(1), rows = int64_t(counts.size());
    const double* gram = gram_.data_ptr<double>() + slot * (m + 1);
    const bool causal = layout_.scope == Scope::Causal;
    const int64_t T = causal ? layout_.positions : 1;
    for (int64_t begin = 0; begin < rows; begin += T) {
      double squared = 0;
      for (int64_t k = 0; k < T; ++k) {
        const int64_t r = begin + (layout_.order == Order::Backward ? T - 1 - k : k);
        squared = (causal ? options_.decay * squared : 0) + gram[r * m * m];
        if (at.anew[size_t(r)]) safeguards_[size_t(r)] = {};
        if (!at.resting[size_t(r)] && safeguards_[size_t(r)].plain(std::sqrt(squared)))
          counts[size_t(r)] = 1;
      }
    }
    return counts;
  }

  /// Row and column `slot` of every row's Gram matrix, from products (R, held). The residual of a
  /// row that rests is the one before it, and so are its products.
  void remember_products(const Tensor& products, const std::vector<char>& resting, int64_t slot) {
    const int64_t rows = products.size(0), held = products.size(1);
    gram_ = small::with_room(gram_, rows, held, options_.memory);
    const int64_t m = gram_.size(1);
    const double* from = products.data_ptr<double>();
    double* gram = gram_.data_ptr<double>();
    const int64_t before = slot > 0 ? slot - 1 : held - 1;
    for (int64_t r = 0; r < rows; ++r, gram += m * m, from += held) {
      const bool rests = resting[size_t(r)] && before != slot;
      const double own = rests ? gram[before * m + before] : from[slot];
      for (int64_t i = 0; i < held; ++i) {
        if (i != slot)
          gram[slot * m + i] = gram[i * m + slot] = rests ? gram[before * m + i] : from[i];
      }
      gram[slot * m + slot] = own;
    }
  }

  Anderson options_;
  Layout layout_;
  int64_t count_ = 0;
  std::vector<Safeguard> safeguards_;
  std::vector<int64_t> ages_;      // newest iterates that a row may mix
  std::vector<Tensor> residuals_;  // each (R, n), in slots
  // Each (R, n), the oldest first: what a row mixes is summed in the order of time, whatever slot
  // it began at.
  std::vector<Tensor> images_;
  Tensor mixing_;  // (R, 1), where it is not 1
  Tensor gram_;    // (R, M, M) double, on the CPU, M slots in use or not
};

}  // namespace

int64_t Anderson::memory_for(const Layout& layout) const {
  return layout.scope == Scope::Causal ? memory : std::min(memory, 2 * layout.width() + 2);
}

Propose Anderson::start(const Layout& layout) const {
  auto method = std::make_shared<AndersonMethod>(*this, layout);
  return [method](const Iterate& at) { return method->propose(at); };
}

}  // namespace deq
