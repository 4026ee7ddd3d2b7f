// What operators may be given: tensors of any strides, and what happens to one that is written in
// place.
#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "deq/base/error.h"
#include "tests/ops/operators.h"

namespace deq {
namespace {

using at::Tensor;
using testing::Operator;
using testing::operators;
using testing::Tensors;

/// The same numbers, otherwise laid out.
Tensor laid_out(const Tensor& t, int kind) {
  const int64_t last = t.dim() - 1;
  switch (kind) {
    case 0: {  // every second number of a row
      const Tensor wide = at::full({t.numel() * 2}, 7, t.options());
      auto strides = t.strides().vec();
      for (int64_t& stride : strides) stride *= 2;
      Tensor found = wide.as_strided(t.sizes(), strides);
      return found.copy_(t);
    }
    case 1: {  // columns side by side
      if (last == 0) return laid_out(t, 0);
      Tensor found = at::empty(t.transpose(0, last).sizes(), t.options()).transpose(0, last);
      return found.copy_(t);
    }
    default: {  // a piece of something larger, not at its beginning
      auto sizes = t.sizes().vec();
      for (int64_t& size : sizes) size += 3;
      Tensor found = at::full(sizes, 7, t.options());
      for (int64_t d = 0; d <= last; ++d) found = found.narrow(d, 2, t.size(d));
      return found.copy_(t);
    }
  }
}

Tensors with_gradient(Tensors x) {
  for (Tensor& t : x) t.requires_grad_(true);
  return x;
}

/// Gradients of every input by a fixed direction; undefined ones without elements.
Tensors gradients(const Tensor& y, const Tensors& x) {
  const Tensor dy = (at::arange(y.numel(), y.options()) + 1).cos().view(y.sizes());
  Tensors found = torch::autograd::grad({y}, x, {dy}, true, false, true);
  for (Tensor& t : found) t = t.defined() ? t : at::empty({0});
  return found;
}

TEST(Operators, ReadInputsOfAnyStrides) {
  at::manual_seed(3);
  for (const Operator& op : operators()) {
    for (const auto type : {at::kFloat, at::kDouble}) {
      const Tensors plain = with_gradient(op.draw(type));
      const Tensor expected = op.ours(plain);
      const Tensors known = gradients(expected, plain);
      const double tolerance = type == at::kFloat ? 1e-4 : 1e-12;
      ASSERT_LT((expected - op.plain(plain)).abs().max().item<double>(), tolerance) << op.name;
      for (int kind = 0; kind < 3; ++kind) {
        for (size_t i = 0; i <= plain.size(); ++i) {  // one of them, then all
          SCOPED_TRACE(fmt::format("{}, layout {}, input {}", op.name, kind, i));
          Tensors x;
          for (size_t j = 0; j < plain.size(); ++j) {
            const bool other = i == j || i == plain.size();
            x.push_back(other ? laid_out(plain[j].detach(), kind) : plain[j].detach().clone());
          }
          x = with_gradient(x);
          const Tensor found = op.ours(x);
          ASSERT_TRUE(at::equal(found, expected));
          {
            c10::NoGradGuard no_tape;
            ASSERT_TRUE(at::equal(op.ours(x), expected));
          }
          const Tensors mine = gradients(found, x);
          for (size_t j = 0; j < x.size(); ++j)
            ASSERT_TRUE(at::allclose(mine[j], known[j], tolerance, tolerance)) << j;
        }
      }
    }
  }
}

TEST(Operators, ReadRowsThatAreOneRowRepeated) {
  at::manual_seed(5);
  for (const Operator& op : operators()) {
    const Tensors plain = op.draw(at::kDouble);
    for (size_t i = 0; i < plain.size(); ++i) {
      Tensors repeated = plain, copied = plain;
      repeated[i] = plain[i].narrow(0, 0, 1).expand(plain[i].sizes());
      copied[i] = repeated[i].contiguous();
      EXPECT_TRUE(at::equal(op.ours(repeated), op.ours(copied))) << op.name << ", input " << i;
    }
  }
}

/// Writes into a tensor so that its version rises.
void write(const Tensor& t) {
  c10::NoGradGuard no_tape;
  t.mul_(-1.5).add_(0.25);
}

// As LibTorch's operators: an error where backward needs what was written, else the right gradient.
TEST(Operators, AnInputChangedBeforeBackwardGivesNoWrongGradient) {
  at::manual_seed(7);
  int raised = 0;
  for (const Operator& op : operators()) {
    for (size_t i = 0; i < op.shapes.size(); ++i) {
      const Tensors x = with_gradient(op.draw(at::kDouble));
      const Tensor y = op.ours(x);
      const Tensors known = gradients(y, x);
      write(x[i]);
      try {
        const Tensors found = gradients(y, x);
        for (size_t j = 0; j < x.size(); ++j)
          EXPECT_TRUE(at::equal(found[j], known[j])) << op.name << ", input " << i << ", of " << j;
      } catch (const std::exception& error) {
        ++raised;
        EXPECT_NE(std::string(error.what()).find("place"), std::string::npos) << error.what();
      }
    }
  }
  EXPECT_GT(raised, 20);
}

TEST(Operators, AWeightChangedAfterItsLayoutWasMadeIsAnError) {
  at::manual_seed(9);
  for (const Operator& op : operators()) {
    if (op.name == "attention" || op.name == "softmax loss") continue;  // nothing is kept
    for (const bool tape : {false, true}) {
      at::AutoGradMode mode(tape);
      const Tensors x = op.draw(at::kDouble);
      const auto f = op.bind(x);
      const Tensor before = f(x[0]);
      write(x[0]);
      EXPECT_NO_THROW(f(x[0])) << op.name;  // another state is no fault
      write(x[1]);
      EXPECT_THROW(f(x[0]), Error) << op.name;
      EXPECT_FALSE(at::equal(op.ours(x), before));
    }
  }
}

// The products of an adjoint solve, which hold no tape that could tell.
TEST(Operators, ALinearisationWhoseStateWasChangedIsAnError) {
  at::manual_seed(11);
  for (const Operator& op : operators()) {
    if (op.name.rfind("block", 0) != 0 && op.name != "trellis") continue;
    const Tensors x = op.draw(at::kDouble);
    const Map map =
        op.name == "trellis"
            ? ops::TrellisStep(testing::trellis_of(x)).map()
            : ops::TransformerBlock(
                  testing::block_of(
                      x, op.name == "block, pre" ? ops::NormPlace::Pre : ops::NormPlace::Post,
                      true))
                  .map();
    for (const size_t changed : {size_t(0), size_t(1)}) {
      const Tensor z = x[0].clone().requires_grad_(true);
      const Map::Linearised at_z = map.linearise(z);
      const Tensor u = at::ones_like(z);
      const Tensor product = at_z.transposed(u, {}).clone();
      EXPECT_TRUE(at::equal(at_z.transposed(u, {}), product));
      write(changed == 0 ? z : x[1]);
      EXPECT_THROW(at_z.transposed(u, {}), Error) << op.name << ", " << changed;
    }
  }
}

}  // namespace
}  // namespace deq
