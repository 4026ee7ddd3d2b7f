#include "deq/base/tensor_pool.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace {

using at::Tensor;

TEST(TensorPool, GivesAgainWhatNobodyHolds) {
  deq::TensorPool pool;
  const void* memory = nullptr;
  {
    const Tensor t = pool.empty({3, 4}, at::kFloat);
    memory = t.data_ptr();
  }
  EXPECT_EQ(pool.empty({3, 4}, at::kFloat).data_ptr(), memory);
}

TEST(TensorPool, GivesNothingThatIsHeldAsTensorOrAsView) {
  deq::TensorPool pool;
  Tensor t = pool.empty({3, 4}, at::kFloat);
  const void* memory = t.data_ptr();
  EXPECT_NE(pool.empty({3, 4}, at::kFloat).data_ptr(), memory);
  Tensor view = t.view({12}).detach();
  t = Tensor();
  EXPECT_NE(pool.empty({3, 4}, at::kFloat).data_ptr(), memory);
  view = Tensor();
  EXPECT_EQ(pool.empty({3, 4}, at::kFloat).data_ptr(), memory);
}

TEST(TensorPool, KeepsShapesAndTypesApart) {
  deq::TensorPool pool;
  pool.empty({3, 4}, at::kFloat);
  const Tensor shape = pool.empty({4, 3}, at::kFloat), type = pool.empty({3, 4}, at::kDouble);
  EXPECT_EQ(shape.sizes(), (at::IntArrayRef{4, 3}));
  EXPECT_EQ(type.scalar_type(), at::kDouble);
}

TEST(TensorPool, WhatItGaveOutlivesIt) {
  Tensor t;
  {
    deq::TensorPool pool;
    t = pool.empty({2}, at::kFloat);
  }
  t.fill_(1);
  EXPECT_EQ(t.sum().item<float>(), 2);
}

}  // namespace
