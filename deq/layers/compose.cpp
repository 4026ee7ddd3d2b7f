#include "deq/layers/compose.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/base/error.h"

namespace deq {

using at::Tensor;

namespace {

std::vector<int64_t> without_last(const Tensor& t) {
  std::vector<int64_t> sizes = t.sizes().vec();
  if (!sizes.empty()) sizes.pop_back();
  return sizes;
}

std::vector<Tensor> split(const Tensor& z, const std::vector<int64_t>& widths) {
  std::vector<Tensor> parts = z.split_with_sizes(widths, -1);
  for (Tensor& part : parts) part = part.contiguous();
  return parts;
}

Tensor zeros(const Tensor& like, const std::vector<int64_t>& widths) {
  std::vector<int64_t> sizes = like.sizes().vec();
  sizes.back() = 0;
  for (const int64_t width : widths) sizes.back() += width;
  return at::zeros(sizes, like.options().requires_grad(false));
}

/// Levels 2 .. L, and h_1.
struct Levels {
  Tensor first;
  std::vector<Map> rest;
  std::vector<int64_t> widths;

  Tensor operator()(const Tensor& z) const {
    const std::vector<Tensor> h = split(z, widths);
    std::vector<Tensor> next{first};
    for (size_t i = 0; i < rest.size(); ++i) next.push_back(rest[i](h[i]));
    return at::cat(next, -1);
  }

  /// f(z) with its tape, and every level's own: an adjoint goes down them one by one.
  Map::Linearised linearise(const Tensor& z) const {
    const std::vector<Tensor> h = split(z, widths);
    std::vector<Tensor> next{first};
    std::vector<Map::Linearised> at_h;
    for (size_t i = 0; i < rest.size(); ++i) {
      at_h.push_back(rest[i].linearise(h[i]));
      next.push_back(at_h.back().fz);
    }
    Map::Linearised found;
    found.fz = at::cat(next, -1);
    found.transposed = [at_h, widths = widths](const Tensor& u, const std::vector<int64_t>&) {
      const std::vector<Tensor> parts = split(u, widths);
      std::vector<Tensor> product;
      for (size_t i = 0; i < at_h.size(); ++i)
        product.push_back(at_h[i].transposed(parts[i + 1], {}));
      product.push_back(at::zeros_like(parts.back()));
      return at::cat(product, -1);
    };
    found.solve = [at_h, widths = widths](const Tensor& g) {
      std::vector<Tensor> u = split(g, widths);
      for (size_t i = at_h.size(); i-- > 0;) u[i] = u[i] + at_h[i].transposed(u[i + 1], {});
      return at::cat(u, -1);
    };
    return found;
  }
};

}  // namespace

std::vector<Tensor> Composition::parts(const Tensor& z) const {
  int64_t width = 0;
  for (const int64_t one : widths) width += one;
  DEQ_CHECK(z.dim() > 0 && z.size(-1) == width,
            "parts of a state of shape [{}]; expected {} features at the end",
            fmt::join(z.sizes(), ", "), width);
  return z.split_with_sizes(widths, -1);
}

Composition as_equilibrium(const std::vector<Map>& levels, const Tensor& x) {
  DEQ_CHECK(!levels.empty(), "as_equilibrium: no levels; expected at least one");
  Levels all;
  Composition found;
  all.first = levels.front()(x);
  {
    c10::AutoGradMode no_tape(false);
    Tensor h = all.first.detach();
    for (size_t i = 0; i < levels.size(); ++i) {
      if (i > 0) h = levels[i](h);
      DEQ_CHECK(h.dim() > 0 && without_last(h) == without_last(all.first),
                "as_equilibrium: level {} gives a state of shape [{}]; expected [{}, any]", i + 1,
                fmt::join(h.sizes(), ", "), fmt::join(without_last(all.first), ", "));
      all.widths.push_back(h.size(-1));
    }
  }
  all.rest.assign(levels.begin() + 1, levels.end());
  found.widths = all.widths;
  found.start = zeros(all.first, all.widths);
  const auto f = std::make_shared<const Levels>(std::move(all));
  found.f = Map([f](const Tensor& z) { return (*f)(z); }, {});
  found.f.set_linearise([f](const Tensor& z) { return f->linearise(z); });
  return found;
}

Composition stack(const Map& f1, const Above& f2, const Tensor& like1, const Tensor& like2) {
  DEQ_CHECK(like1.dim() > 0 && without_last(like1) == without_last(like2) &&
                like1.scalar_type() == like2.scalar_type(),
            "stack: states of shapes [{}] and [{}]; expected the same but for the last dimension, "
            "and one type",
            fmt::join(like1.sizes(), ", "), fmt::join(like2.sizes(), ", "));
  Composition found;
  found.widths = {like1.size(-1), like2.size(-1)};
  found.start = zeros(like1, found.widths);
  found.f = Map(
      [f1, f2, widths = found.widths](const Tensor& z) {
        const std::vector<Tensor> parts = split(z, widths);
        return at::cat({f1(parts[0]), f2(parts[1], parts[0])}, -1);
      },
      {});
  return found;
}

}  // namespace deq
