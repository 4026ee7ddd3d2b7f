// Compiled once per SIMD target (Highway).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deq/ops/packed.cpp"
#include "deq/ops/packed.h"

#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "deq/ops/product-inl.h"

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {

int64_t width_float() { return panel_width<float>(); }
int64_t width_double() { return panel_width<double>(); }
void pack_float(const Strided<float>& b, int64_t k, int64_t n, float* out) {
  pack<float>(b, k, n, out, k * panel_width<float>());
}
void pack_double(const Strided<double>& b, int64_t k, int64_t n, double* out) {
  pack<double>(b, k, n, out, k * panel_width<double>());
}
void product_float(int64_t rows, int64_t n, int64_t k, const float* x, const float* panels,
                   float* to, bool add) {
  weight_product<float>(rows, n, k, x, {panels}, to, add ? Base<float>{to, n} : Base<float>{});
}
void product_double(int64_t rows, int64_t n, int64_t k, const double* x, const double* panels,
                    double* to, bool add) {
  weight_product<double>(rows, n, k, x, {panels}, to, add ? Base<double>{to, n} : Base<double>{});
}

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <ATen/ATen.h>

namespace deq::ops {
HWY_EXPORT(width_float);
HWY_EXPORT(width_double);
HWY_EXPORT(pack_float);
HWY_EXPORT(pack_double);
HWY_EXPORT(product_float);
HWY_EXPORT(product_double);

template <>
int64_t panel_width<float>() {
  return HWY_DYNAMIC_DISPATCH(width_float)();
}
template <>
int64_t panel_width<double>() {
  return HWY_DYNAMIC_DISPATCH(width_double)();
}
void pack(const Strided<float>& b, int64_t k, int64_t n, float* out) {
  HWY_DYNAMIC_DISPATCH(pack_float)(b, k, n, out);
}
void pack(const Strided<double>& b, int64_t k, int64_t n, double* out) {
  HWY_DYNAMIC_DISPATCH(pack_double)(b, k, n, out);
}
void packed_product(int64_t rows, int64_t n, int64_t k, const float* x, const float* panels,
                    float* to, bool add) {
  HWY_DYNAMIC_DISPATCH(product_float)(rows, n, k, x, panels, to, add);
}
void packed_product(int64_t rows, int64_t n, int64_t k, const double* x, const double* panels,
                    double* to, bool add) {
  HWY_DYNAMIC_DISPATCH(product_double)(rows, n, k, x, panels, to, add);
}

namespace {

template <class T>
at::Tensor packed(const at::Tensor& weight, bool transposed) {
  const int64_t n = weight.size(0), k = weight.size(1);
  const Strided<T> rows{weight.data_ptr<T>(), weight.stride(0), weight.stride(1)};
  at::Tensor out = at::empty({packed_size<T>(transposed ? n : k, transposed ? k : n)},
                             weight.options().requires_grad(false));
  if (transposed) {
    pack(rows, n, k, out.data_ptr<T>());
  } else {
    pack(rows.transposed(), k, n, out.data_ptr<T>());
  }
  return out;
}

}  // namespace

at::Tensor weight_as(const at::Tensor& weight, WeightType type) {
  if (type == WeightType::Exact) return weight;
  return weight.detach().to(at::kBFloat16).to(weight.scalar_type());
}

at::Tensor packed_weight(const at::Tensor& weight, bool transposed, WeightType type) {
  if (weight.scalar_type() == at::kDouble) return packed<double>(weight, transposed);
  const at::Tensor panels = packed<float>(weight, transposed);
  if (type == WeightType::Exact) return panels;
  // Of the rows (first vector, second vector): the numbers of both by turns.
  const at::Tensor halves = panels.view({-1, 2, panel_width<float>() / 2}).transpose(1, 2);
  return halves.to(at::kBFloat16).contiguous().view({-1}).view(at::kInt);
}

}  // namespace deq::ops
#endif
