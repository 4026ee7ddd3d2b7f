// safetensors files that we did not write: what loads, and what is refused with a reason.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>

#include "deq/files/safetensors.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;

std::string file_of(const std::string& json, size_t data_bytes) {
  const uint64_t length = json.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + json + std::string(data_bytes, '\0');
}

std::string one(const std::string& fields) { return "{\"w\":{" + fields + "}}"; }

TEST(ForeignSafetensors, FilesFromElsewhereLoad) {
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

// Other types of the format beside the tensors that are wanted, before, between and behind them.
TEST(ForeignSafetensors, OtherTypesArePassedOver) {
  const std::string json = R"({"__metadata__":null,
      "a":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[0,3]},
      "b":{"dtype":"U8","shape":[1],"data_offsets":[3,4]},
      "c":{"dtype":"C64","shape":[1],"data_offsets":[4,12]},
      "d":{"dtype":"F8_E5M2","shape":[0],"data_offsets":[12,12]},
      "e":{"dtype":"U64","shape":[1],"data_offsets":[12,20]},
      "f":{"dtype":"U32","shape":[],"data_offsets":[20,24]},
      "g":{"dtype":"U16","shape":[1],"data_offsets":[24,26]},
      "h":{"dtype":"F4","shape":[4],"data_offsets":[26,28]},
      "w":{"dtype":"F32","shape":[1],"data_offsets":[28,32]}})";
  std::string bytes = file_of(json, 32);
  const float wanted = 2.5;
  std::memcpy(bytes.data() + bytes.size() - 4, &wanted, 4);
  bytes[bytes.size() - 32 + 3] = 7;
  const TensorFile file = parse_tensors(bytes, "x");
  ASSERT_EQ(file.tensors.size(), 2u);
  EXPECT_EQ(tensor_of(file, "w", "x").item<float>(), 2.5f);
  EXPECT_EQ(tensor_of(file, "b", "x").item<int>(), 7);
  EXPECT_TRUE(file.metadata.empty());
  EXPECT_EQ(file.unread, (std::map<std::string, std::string>{{"a", "F8_E4M3"},
                                                             {"c", "C64"},
                                                             {"d", "F8_E5M2"},
                                                             {"e", "U64"},
                                                             {"f", "U32"},
                                                             {"g", "U16"},
                                                             {"h", "F4"}}));
  EXPECT_EQ(error_of([&] { tensor_of(file, "a", "x"); }),
            "x: tensor 'a' has dtype 'F8_E4M3'; known: F64, F32, F16, BF16, I64, I32, I16, I8, U8, "
            "BOOL");
  EXPECT_EQ(error_of([&] { tensor_of(file, "v", "x"); }), "x: tensor 'v' is missing");
  EXPECT_SAYS(error_of([&] { require_all_read(file, "x"); }), "x: tensor 'a' has dtype 'F8_E4M3'");
  EXPECT_NO_THROW(require_all_read({}, "x"));
}

// More than one piece of what is passed over; the tensor behind it is at its place.
TEST(ForeignSafetensors, ALargeTensorIsPassedOver) {
  const size_t large = (size_t{5} << 20) + 3;
  const std::string json =
      fmt::format(R"({{"a":{{"dtype":"F8_E5M2","shape":[{0}],"data_offsets":[0,{0}]}},)"
                  R"("w":{{"dtype":"U8","shape":[1],"data_offsets":[{0},{1}]}}}})",
                  large, large + 1);
  std::string bytes = file_of(json, large + 1);
  bytes.back() = 9;
  EXPECT_EQ(parse_tensors(bytes, "x").tensors.at("w").item<int>(), 9);
}

TEST(ForeignSafetensors, HostileFilesAreRefusedWithAReason) {
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
      {R"({"w":{"dtype":null}})", 0, "tensor 'w' has dtype = null; expected a string"},
      {R"({"__metadata__":null,"__metadata__":{}})", 0, "__metadata__ occurs twice"},
      {R"({"__metadata__":{"a":null}})", 0, "metadata 'a' is null; expected a string"},
      {one(R"("dtype":"F8_E4M3","shape":[2],"data_offsets":[0,4])"), 4,
       "has 4 bytes; expected 2 for F8_E4M3 [2]"},
      {one(R"("dtype":"U64","shape":[2],"data_offsets":[0,4])"), 4,
       "has 4 bytes; expected 16 for U64 [2]"},
      {one(R"("dtype":"U64","shape":[1152921504606846976],"data_offsets":[0,0])"), 0,
       "less than 2^62 bytes"},
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

TEST(ForeignSafetensors, DeepNestingAndLongNamesStaySmall) {
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

TEST(ForeignSafetensors, HeaderLengthsBeyondTheFileAreRefused) {
  for (const uint64_t length :
       {uint64_t{3}, uint64_t{99'999'999}, uint64_t{100'000'001}, ~uint64_t{0}}) {
    std::string bytes = file_of("{}", 0);
    std::memcpy(bytes.data(), &length, 8);
    EXPECT_SAYS(error_of([&] { parse_tensors(bytes, "x"); }),
                fmt::format("its header has {} bytes; expected at most", length));
  }
  EXPECT_SAYS(error_of([&] { parse_tensors("", "x"); }), "it has 0 bytes; expected at least 8");
}

TEST(ForeignSafetensors, ABoolIsZeroOrOne) {
  std::string bytes = file_of(one(R"("dtype":"BOOL","shape":[2],"data_offsets":[0,2])"), 2);
  EXPECT_NO_THROW(parse_tensors(bytes, "x"));
  bytes.back() = 7;
  EXPECT_SAYS(error_of([&] { parse_tensors(bytes, "x"); }),
              "tensor 'w' has a BOOL of 7; expected 0 or 1");
}

}  // namespace
}  // namespace deq
