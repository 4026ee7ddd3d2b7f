#include "deq/files/safetensors.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <random>

#include "deq/files/sha256.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;
using testing::Scratch;
using testing::slurp;
using testing::spill;

const at::ScalarType kTypes[] = {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong,
                                 at::kInt,    at::kShort, at::kChar, at::kByte,     at::kBool};

at::Tensor random_tensor(std::vector<int64_t> shape, at::ScalarType type) {
  return (at::randn(shape) * 50).abs().to(type);
}

void expect_same(const at::Tensor& got, const at::Tensor& expected, const std::string& name) {
  ASSERT_EQ(got.scalar_type(), expected.scalar_type()) << name;
  ASSERT_EQ(got.sizes(), expected.sizes()) << name;
  EXPECT_TRUE(got.is_contiguous()) << name;
  const at::Tensor wanted = expected.detach().cpu().contiguous();
  if (got.numel() == 0) return;
  EXPECT_EQ(std::memcmp(got.data_ptr(), wanted.data_ptr(), got.nbytes()), 0) << name;
}

/// A file with one tensor of every type, in which each shape, stride and name is unusual.
std::map<std::string, at::Tensor> unusual_tensors() {
  std::map<std::string, at::Tensor> tensors;
  for (const at::ScalarType type : kTypes) {
    const std::string name = c10::toString(type);
    tensors[name] = random_tensor({3, 5}, type);
    tensors[name + ".scalar"] = random_tensor({}, type);
    tensors[name + ".empty"] = random_tensor({0, 7}, type);
    tensors[name + ".transposed"] = random_tensor({3, 5, 2}, type).transpose(0, 2);
    tensors[name + ".strided"] = random_tensor({9}, type).slice(0, 1, 9, 3);
  }
  tensors["expanded"] = at::arange(3, at::kFloat).unsqueeze(1).expand({3, 4});
  tensors["requires grad"] = at::randn({2}).requires_grad_();
  tensors["no \"quotes\"\n\\ gr\u00fc\u00df \U0001F600"] = at::randn({1});
  tensors[""] = at::ones({1});
  tensors["special"] = at::tensor({std::nan(""), INFINITY, -INFINITY, -0.0, 5e-324});
  tensors["negated"] = at::_neg_view(at::randn({3}));
  tensors["conjugate"] = at::imag(at::complex(at::ones({3}), at::randn({3})).conj());
  return tensors;
}

TEST(Safetensors, RoundTripsEveryTypeAndShape) {
  Scratch scratch;
  const auto tensors = unusual_tensors();
  const std::map<std::string, std::string> metadata = {
      {"config", "a = \"b\"\nc = 1\n"}, {"aaa", ""}, {"gr\u00fc\u00df", "\u0001\u007f\U0001F600"}};
  save_tensors(scratch / "x.safetensors", tensors, metadata);
  const TensorFile loaded = load_tensors(scratch / "x.safetensors");
  EXPECT_EQ(loaded.metadata, metadata);
  ASSERT_EQ(loaded.tensors.size(), tensors.size());
  for (const auto& [name, tensor] : tensors)
    expect_same(loaded.tensors.at(name), tensor.resolve_neg(), name);
  const TensorFile parsed = parse_tensors(slurp(scratch / "x.safetensors"), "memory");
  for (const auto& [name, tensor] : tensors)
    expect_same(parsed.tensors.at(name), tensor.resolve_neg(), name);
}

TEST(Safetensors, LoadedAndSavedAgainIsTheSameFile) {
  Scratch scratch;
  save_tensors(scratch / "a", unusual_tensors(), {{"step", "12"}});
  const TensorFile loaded = load_tensors(scratch / "a");
  save_tensors(scratch / "b", loaded.tensors, loaded.metadata);
  EXPECT_EQ(slurp(scratch / "a"), slurp(scratch / "b"));
}

TEST(Safetensors, NothingAtAllRoundTrips) {
  Scratch scratch;
  save_tensors(scratch / "a", {}, {});
  EXPECT_TRUE(load_tensors(scratch / "a").tensors.empty());
}

TEST(Safetensors, LoadedTensorsOwnTheirMemory) {
  Scratch scratch;
  save_tensors(scratch / "a", {{"w", at::arange(1000)}});
  at::Tensor w;
  {
    std::string bytes = slurp(scratch / "a");
    w = parse_tensors(bytes, "memory").tensors.at("w");
    std::fill(bytes.begin(), bytes.end(), '\xff');
  }
  EXPECT_TRUE(w.equal(at::arange(1000)));
  w.zero_();
  EXPECT_TRUE(load_tensors(scratch / "a").tensors.at("w").equal(at::arange(1000)));
}

TEST(Safetensors, EachTensorIsAlignedToItsType) {
  Scratch scratch;
  save_tensors(scratch / "a", {{"a", at::ones({3}, at::kByte)},
                               {"b", at::ones({1}, at::kHalf)},
                               {"c", at::ones({1}, at::kDouble)},
                               {"d", at::ones({1}, at::kFloat)}});
  const std::string bytes = slurp(scratch / "a");
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), 8);
  EXPECT_EQ(length % 8, 0u);
  EXPECT_SAYS(bytes, R"("c":{"dtype":"F64","shape":[1],"data_offsets":[0,8]})");
  EXPECT_SAYS(bytes, R"("d":{"dtype":"F32","shape":[1],"data_offsets":[8,12]})");
  EXPECT_SAYS(bytes, R"("b":{"dtype":"F16","shape":[1],"data_offsets":[12,14]})");
  EXPECT_SAYS(bytes, R"("a":{"dtype":"U8","shape":[3],"data_offsets":[14,17]})");
}

TEST(Safetensors, TheDigestIsOverTheFileWithZerosInItsPlace) {
  Scratch scratch;
  save_tensors(scratch / "a", {{"w", at::randn({5})}}, {{"k", "v"}});
  std::string bytes = slurp(scratch / "a");
  const std::string key = "\"deq_sha256\":\"";
  const size_t at = bytes.find(key) + key.size();
  const std::string digest = bytes.substr(at, 64);
  EXPECT_EQ(sha256_hex(bytes.replace(at, 64, 64, '0')), digest);
}

/// A small file that has all that a checkpoint has.
std::string small_file() {
  Scratch scratch;
  save_tensors(scratch / "a",
               {{"b", at::ones({3}, at::kBool)}, {"w", at::ones({2, 2})}, {"e", at::ones({0})}},
               {{"step", "7"}});
  return slurp(scratch / "a");
}

TEST(Safetensors, AnyFlippedBitIsAnError) {
  const std::string good = small_file();
  EXPECT_NO_THROW(parse_tensors(good, "x"));
  size_t damaged = 0;
  for (size_t bit = 0; bit < good.size() * 8; ++bit) {
    std::string bytes = good;
    bytes[bit / 8] = char(bytes[bit / 8] ^ (1 << bit % 8));
    const std::string message = error_of([&] { parse_tensors(bytes, "x"); });
    damaged += message.find("checkpoint 'x' is damaged: ") == 0;
  }
  EXPECT_GT(damaged, good.size() * 8 * 3 / 4);  // the rest lie in what marks the file as ours
}

TEST(Safetensors, AnyTruncationOrAdditionIsAnError) {
  const std::string good = small_file();
  for (size_t size = 0; size < good.size(); ++size) {
    error_of([&] { parse_tensors(good.substr(0, size), "x"); });
  }
  EXPECT_SAYS(error_of([&] { parse_tensors(good + '\0', "x"); }), "checkpoint 'x' is damaged");
}

TEST(Safetensors, AFileRewrittenByAnotherProgramSaysWhatToDo) {
  const std::string good = small_file();
  std::string bytes = good;
  const std::string from = R"({"__metadata__":{"deq_format")",
                    to = R"({"__metadata__":{ "deq_forma")";
  bytes.replace(bytes.find(from), from.size(), to);
  EXPECT_SAYS(error_of([&] { parse_tensors(bytes, "x"); }), "must drop the metadata keys");
}

TEST(Safetensors, WhatCannotBeSavedIsNamedAndWritesNothing) {
  Scratch scratch;
  const auto message = [&](const std::string& name, const at::Tensor& tensor,
                           std::map<std::string, std::string> metadata = {}) {
    return error_of([&] { save_tensors(scratch / "x", {{name, tensor}}, metadata); });
  };
  EXPECT_SAYS(message("w", at::Tensor()), "tensor 'w' is undefined");
  EXPECT_SAYS(message("w", at::ones({1}, at::kComplexFloat)),
              "tensor 'w' has dtype ComplexFloat; known: F64");
  EXPECT_SAYS(message("w", at::eye(2).to_sparse()), "tensor 'w' is sparse");
  EXPECT_SAYS(message("w", at::ones({1}, at::kMeta)), "tensor 'w' is on the meta device");
  EXPECT_SAYS(message("\xff", at::ones({1})), "is not UTF-8");
  EXPECT_SAYS(message("w", at::ones({1}), {{"k", "\xc3("}}), "is not UTF-8");
  EXPECT_SAYS(message("__metadata__", at::ones({1})), "the format's own");
  EXPECT_SAYS(message("w", at::Tensor()), (scratch / "x").string());
  EXPECT_TRUE(scratch.names().empty());
}

TEST(Safetensors, OurKeysInTheMetadataAreOurs) {
  Scratch scratch;
  save_tensors(scratch / "a", {{"w", at::ones({1})}},
               {{"deq_sha256", "forged"}, {"deq_format", "9"}, {"k", "v"}});
  EXPECT_EQ(load_tensors(scratch / "a").metadata, (std::map<std::string, std::string>{{"k", "v"}}));
}

TEST(Safetensors, LoadingNamesTheFile) {
  Scratch scratch;
  const auto message = [&](const std::string& name) {
    return error_of([&] { load_tensors(scratch / name); });
  };
  EXPECT_SAYS(message("absent"), "absent': No such file or directory");
  EXPECT_SAYS(message(""), "it is a folder");
  std::string bytes = small_file();
  bytes[bytes.size() - 1] ^= 1;
  spill(scratch / "bad", bytes);
  EXPECT_EQ(message("bad"),
            fmt::format("checkpoint '{}' is damaged: its contents do not match their SHA-256",
                        (scratch / "bad").string()));
  spill(scratch / "short", bytes.substr(0, bytes.size() - 1));
  EXPECT_SAYS(message("short"), "expected within the");
}

}  // namespace
}  // namespace deq
