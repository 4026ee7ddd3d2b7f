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
    remember_products(ops::row_dots(residuals_, at.g).to(at::kCPU), slot, held);
    if (held == 1) return {image, {}};
    const Tensor coefficients = small::least_mixture(
        gram_, layout_,
        {.held = held, .newest = slot, .ridge = options_.ridge, .decay = options_.decay});
    return {ops::row_mix(coefficients.to(at.g.device()), images_), {}};
  }

 private:
  /// Row and column `slot` of every row's Gram matrix, from products (R, held).
  void remember_products(const Tensor& products, int64_t slot, int64_t held) {
    const int64_t rows = products.size(0), m = options_.memory;
    if (!gram_.defined()) gram_ = at::zeros({rows, m, m}, products.options());
    const double* from = products.data_ptr<double>();
    double* gram = gram_.data_ptr<double>();
    for (int64_t r = 0; r < rows; ++r, gram += m * m, from += held) {
      for (int64_t i = 0; i < held; ++i) gram[slot * m + i] = gram[i * m + slot] = from[i];
    }
  }

  Anderson options_;
  Layout layout_;
  int64_t count_ = 0;
  std::vector<Tensor> residuals_, images_;  // each (R, n)
  Tensor gram_;                             // (R, m, m) double, on the CPU
};

}  // namespace

Propose Anderson::start(const Layout& layout) const {
  auto method = std::make_shared<AndersonMethod>(*this, layout);
  return [method](const Iterate& at) { return method->propose(at); };
}

}  // namespace deq
