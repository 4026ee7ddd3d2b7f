// Whatever the text, parse_toml and assign_options set options or throw a deq::Error; and options
// that were set are written as a file that reads back to the same options.
#include <cstdint>

#include "deq/base/fields.h"
#include "fuzz/check.h"
#include "tests/base/sample_options.h"

using deq::testing::Options;

namespace {

std::string text_of(const Options& options) { return deq::to_toml(deq::selected_options(options)); }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  Options options;
  const bool set =
      deq::fuzz::accepted([&] { deq::assign_options(options, deq::parse_toml(text, "fuzz")); });
  if (!set) return 0;
  const std::string written = text_of(options);
  Options again;
  const bool read =
      deq::fuzz::accepted([&] { deq::assign_options(again, deq::parse_toml(written, "written")); });
  if (!read || text_of(again) != written) deq::fuzz::fail("does not read back", written);
  return 0;
}
