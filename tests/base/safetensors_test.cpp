#include "deq/base/safetensors.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <random>

#include "deq/base/files.h"
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

std::string file_of(const std::string& json, size_t data_bytes) {
  const uint64_t length = json.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + json + std::string(data_bytes, '\0');
}

std::string one(const std::string& fields) { return "{\"w\":{" + fields + "}}"; }

TEST(Safetensors, FilesFromElsewhereLoad) {
  const auto loads = [](const std::string& json, size_t data) {
    return parse_tensors(file_of(json, data), "x");
  };
  EXPECT_TRUE(loads("{}", 0).tensors.empty());
  EXPECT_TRUE(loads("{}      ", 0).tensors.empty());
  EXPECT_TRUE(loads(R"({"__metadata__":{}})", 0).tensors.empty());
  const auto swapped = loads(
      R"({"b":{"shape":[1],"data_offsets":[4,8],"dtype":"F32"},"__metadata__":{"format":"pt"},
          "a":{"dtype":"I8","shape":[2,2],"data_offsets":[0,4]}})",
      8);
  EXPECT_EQ(swapped.tensors.at("a").sizes(), at::IntArrayRef({2, 2}));
  EXPECT_EQ(swapped.metadata.at("format"), "pt");
  const auto empty =
      loads(R"({"z":{"dtype":"F32","shape":[0,4611686018427],"data_offsets":[0,0]}})", 0);
  EXPECT_EQ(empty.tensors.at("z").numel(), 0);
}

TEST(Safetensors, HostileFilesAreRefusedWithAReason) {
  const std::string tensor = R"("dtype":"F32","shape":[1],"data_offsets":[0,4])";
  struct Case {
    std::string json;
    size_t data;
    const char* expected;
  };
  const Case cases[] = {
      {"", 0, "does not begin with '{'"},
      {" {}", 0, "does not begin with '{'"},
      {"\xef\xbb\xbf{}", 0, "does not begin with '{'"},
      {"[]", 0, "does not begin with '{'"},
      {"{", 0, "no JSON"},
      {"{} {}", 0, "no JSON"},
      {std::string("{}\0", 3), 0, "no JSON"},
      {"{\"a\xff\":1}", 0, "no JSON"},
      {"{\"a\n\":1}", 0, "no JSON"},
      {R"({"\ud800":1})", 0, "no JSON"},
      {R"({"w":1})", 0, "'w' is 1; expected an object"},
      {R"({"w":null})", 0, "'w' is null; expected an object"},
      {R"({"w":[]})", 0, "'w' is an array; expected an object"},
      {R"({"a\nb":"x"})", 0, R"('a\nb' is 'x'; expected an object)"},
      {R"({"__metadata__":{"a":1}})", 0, "metadata 'a' is 1; expected a string"},
      {R"({"__metadata__":{"a":{}}})", 0, "metadata 'a' is an object; expected a string"},
      {R"({"__metadata__":{"a":["b"]}})", 0, "metadata 'a' is an array; expected a string"},
      {R"({"__metadata__":{"a":"1","a":"2"}})", 0, "metadata 'a' occurs twice"},
      {R"({"__metadata__":{},"__metadata__":{}})", 0, "__metadata__ occurs twice"},
      {R"({"__metadata__":"x"})", 0, "'__metadata__' is 'x'; expected an object"},
      {R"({"__metadata__":{"deq_format":"1"}})", 0, "not as it was written"},
      {R"({"__metadata__":{"deq_sha256":"1"}})", 0, "not as it was written"},
      {"{\"w\":{" + tensor + "},\"w\":{" + tensor + "}}", 4, "tensor 'w' occurs twice"},
      {one(tensor + R"(,"dtype":"F32")"), 4, "tensor 'w' has dtype twice"},
      {one(tensor + R"(,"shape":[1])"), 4, "tensor 'w' has shape twice"},
      {one(tensor + R"(,"stride":[1])"), 4,
       "tensor 'w' has 'stride'; known: dtype, shape, data_offsets"},
      {one(""), 0, "tensor 'w' has no dtype"},
      {one(R"("dtype":"F32")"), 0, "tensor 'w' has no shape"},
      {one(R"("dtype":"F32","shape":[])"), 0, "tensor 'w' has no data_offsets"},
      {one(R"("dtype":"F99","shape":[],"data_offsets":[0,4])"), 4, "dtype 'F99'; known: F64, F32"},
      {one(R"("dtype":["F32"])"), 0, "has dtype = an array; expected a string"},
      {one(R"("dtype":3)"), 0, "has dtype = 3; expected a string"},
      {one(R"("shape":"1")"), 0, "has shape = '1'; expected an array"},
      {one(R"("shape":[[1]])"), 0, "has shape = an array; expected a whole number >= 0"},
      {one(R"("shape":[{"a":1}])"), 0, "has shape = an object; expected a whole number >= 0"},
      {one(R"("dtype":"F32","shape":[-1],"data_offsets":[0,4])"), 4,
       "has shape = -1; expected a whole number"},
      {one(R"("shape":[1.0])"), 4, "has shape = 1.0; expected a whole number"},
      {one(R"("shape":[4611686018427387904])"), 4,
       "has shape = 4611686018427387904; expected below 2^62"},
      {one(R"("shape":[99999999999999999999999])"), 4,
       "99999999999999999999999; expected a whole number"},
      {one(R"("dtype":"F32","shape":[4611686018427387903],"data_offsets":[0,4])"), 4,
       "less than 2^62 bytes"},
      {one(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])"), 0,
       "less than 2^62 bytes"},
      {one(R"("dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0])"), 0,
       "less than 2^62 bytes"},
      {one(R"("dtype":"F32","shape":[2],"data_offsets":[0,4])"), 4,
       "has 4 bytes; expected 8 for F32 [2]"},
      {one(R"("dtype":"F32","shape":[1],"data_offsets":[0,8])"), 8,
       "has 8 bytes; expected 4 for F32 [1]"},
      {one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4])"), 3,
       "[0, 4]; expected within the 3 bytes"},
      {one(R"("dtype":"F32","shape":[1],"data_offsets":[4,0])"), 4,
       "[4, 0]; expected within the 4 bytes"},
      {one(R"("dtype":"F32","shape":[1],"data_offsets":[-4,0])"), 4,
       "has data_offsets = -4; expected a whole"},
      {one(R"("dtype":"F32","shape":[1],"data_offsets":[4])"), 4, "has 1 data_offsets; expected 2"},
      {one(R"("dtype":"F32","shape":[1],"data_offsets":[0,4,4])"), 4,
       "has 3 data_offsets; expected 2"},
      {one(tensor), 5, "its data has 5 bytes; expected 4"},
      {"{}", 1, "its data has 1 bytes; expected 0"},
      {one(R"("dtype":"F32","shape":[1],"data_offsets":[4,8])"), 8,
       "begins at byte 4 of the data; expected 0"},
      {"{\"v\":{" + tensor + "},\"w\":{" + tensor + "}}", 4,
       "tensor 'w' begins at byte 0 of the data; expected 4"},
  };
  for (const Case& hostile : cases) {
    const std::string message =
        error_of([&] { parse_tensors(file_of(hostile.json, hostile.data), "x"); });
    EXPECT_SAYS(message, hostile.expected) << hostile.json;
    EXPECT_SAYS(message, "'x'") << hostile.json;
  }
}

TEST(Safetensors, DeepNestingAndLongNamesStaySmall) {
  const std::string deep = "{\"w\":" + std::string(1000000, '[');
  EXPECT_SAYS(error_of([&] { parse_tensors(file_of(deep, 0), "x"); }), "expected an object");
  const std::string objects = "{\"w\":{\"shape\":" + std::string(1000000, '{');
  EXPECT_SAYS(error_of([&] { parse_tensors(file_of(objects, 0), "x"); }), "expected an array");
  const std::string named = "{\"" + std::string(1000000, 'n') + "\":1}";
  EXPECT_LT(error_of([&] { parse_tensors(file_of(named, 0), "x"); }).size(), 300u);
  std::string shape = "1";
  for (int i = 0; i < 64; ++i) shape += ",1";
  EXPECT_SAYS(error_of([&] { parse_tensors(file_of(one("\"shape\":[" + shape + "]"), 0), "x"); }),
              "more than 64 numbers in shape");
}

TEST(Safetensors, HeaderLengthsBeyondTheFileAreRefused) {
  for (const uint64_t length :
       {uint64_t{3}, uint64_t{99'999'999}, uint64_t{100'000'001}, ~uint64_t{0}}) {
    std::string bytes = file_of("{}", 0);
    std::memcpy(bytes.data(), &length, 8);
    EXPECT_SAYS(error_of([&] { parse_tensors(bytes, "x"); }),
                fmt::format("its header has {} bytes; expected at most", length));
  }
  EXPECT_SAYS(error_of([&] { parse_tensors("", "x"); }), "it has 0 bytes; expected at least 8");
}

TEST(Safetensors, ABoolIsZeroOrOne) {
  std::string bytes = file_of(one(R"("dtype":"BOOL","shape":[2],"data_offsets":[0,2])"), 2);
  EXPECT_NO_THROW(parse_tensors(bytes, "x"));
  bytes.back() = 7;
  EXPECT_SAYS(error_of([&] { parse_tensors(bytes, "x"); }),
              "tensor 'w' has a BOOL of 7; expected 0 or 1");
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
