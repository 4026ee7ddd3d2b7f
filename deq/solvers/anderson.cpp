#include "deq/solvers/anderson.h"

#include <ATen/ATen.h>

#include "deq/ops/rows.h"
#include "deq/solvers/small.h"

namespace deq {
namespace {

using at::Tensor;

class AndersonMethod {
 public:
  AndersonMethod(const Anderson& options, const Layout& layout)
      : options_(options), layout_(layout) {}

  Proposal propose(const Iterate& at) {
    const int64_t m = options_.memory;
    const int64_t slot = count_ % m;  // the oldest iterate makes room
    ++count_;
    const Tensor image = options_.mixing == 1.0 ? at.fz : at.z + options_.mixing * at.g;
    if (int64_t(residuals_.size()) < m) {
      residuals_.push_back(at.g);
      images_.push_back(image);
    } else {
      residuals_[size_t(slot)] = at.g;
      images_[size_t(slot)] = image;
    }
    const int64_t held = int64_t(residuals_.size());
    remember_products(ops::row_dots(residuals_, at.g), slot, held);
    if (held == 1) return {image, {}};
    const bool causal = layout_.scope == Scope::Causal;
    const Tensor gram = gram_.narrow(1, 0, held).narrow(2, 0, held);
    const Tensor coefficients = small::least_mixture(
        causal ? small::accumulate(gram, layout_, options_.decay) : gram, options_.ridge, slot);
    return {ops::row_mix(coefficients, images_), {}};
  }

 private:
  /// Row and column `slot` of every row's Gram matrix.
  void remember_products(const Tensor& products, int64_t slot, int64_t held) {
    if (!gram_.defined()) {
      gram_ = at::zeros({products.size(0), options_.memory, options_.memory}, products.options());
    }
    gram_.select(1, slot).narrow(1, 0, held).copy_(products);
    gram_.select(2, slot).narrow(1, 0, held).copy_(products);
  }

  Anderson options_;
  Layout layout_;
  int64_t count_ = 0;
  std::vector<Tensor> residuals_, images_;  // each (R, n)
  Tensor gram_;                             // (R, m, m) double
};

}  // namespace

Propose Anderson::start(const Layout& layout) const {
  auto method = std::make_shared<AndersonMethod>(*this, layout);
  return [method](const Iterate& at) { return method->propose(at); };
}

}  // namespace deq
