#include "deq/data/idx.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;

std::string bytes(std::initializer_list<int> values) {
  std::string out;
  for (const int value : values) out.push_back(char(value));
  return out;
}

TEST(Idx, ReadsItsTypesMostSignificantByteFirst) {
  const at::Tensor images =
      parse_idx(bytes({0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255}), "images");
  EXPECT_EQ(images.scalar_type(), at::kByte);
  EXPECT_EQ(images.sizes(), (at::IntArrayRef{2, 3}));
  EXPECT_EQ(images[1][2].item<int>(), 255);
  const at::Tensor whole =
      parse_idx(bytes({0, 0, 12, 1, 0, 0, 0, 2, 0, 0, 1, 2, 255, 255, 255, 254}), "");
  EXPECT_TRUE(at::equal(whole, at::tensor({258, -2}, at::kInt)));
  const at::Tensor real = parse_idx(bytes({0, 0, 13, 1, 0, 0, 0, 1, 0x3F, 0xC0, 0, 0}), "");
  EXPECT_EQ(real.item<float>(), 1.5f);
  EXPECT_EQ(parse_idx(bytes({0, 0, 9, 1, 0, 0, 0, 0}), "").numel(), 0);
  EXPECT_EQ(parse_idx(bytes({0, 0, 9, 0, 253}), "").item<int>(), -3);
}

TEST(Idx, ReadsFilesAndNamesThemInErrors) {
  const testing::Scratch scratch;
  const auto path = scratch / "labels";
  testing::spill(path, bytes({0, 0, 8, 1, 0, 0, 0, 2, 7, 9}));
  EXPECT_EQ(read_idx(path)[1].item<int>(), 9);
  testing::spill(path, bytes({0, 0, 8, 1, 0, 0, 0, 2, 7}));
  EXPECT_SAYS(error_of([&] { read_idx(path); }), "1 bytes behind sizes [2] of Byte; expected 2");
  EXPECT_THROW(read_idx(scratch / "none"), Error);
}

TEST(Idx, RefusesWhatIsNone) {
  const auto error = [](std::initializer_list<int> values) {
    return error_of([&] { parse_idx(bytes(values), "file"); });
  };
  EXPECT_SAYS(error({0x1F, 0x8B, 8, 0}), "file: is compressed by gzip");
  EXPECT_SAYS(error({}), "file: 0 bytes that are no IDX file");
  EXPECT_SAYS(error({0, 1, 8, 1}), "no IDX file");
  EXPECT_SAYS(error({0, 0, 7, 1, 0, 0, 0, 0}), "type 0x07");
  EXPECT_SAYS(error({0, 0, 8, 2, 0, 0, 0, 1}), "ends within the sizes of its 2 dimensions");
  EXPECT_SAYS(error({0, 0, 8, 1, 0, 0, 0, 1, 5, 6}), "2 bytes behind");
  EXPECT_SAYS(error({0, 0, 14, 3, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255}),
              "of Double; expected smaller sizes");
}

}  // namespace
}  // namespace deq
