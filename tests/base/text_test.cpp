// Digests of text, and text made fit for an error message.
#include <gtest/gtest.h>

#include <map>

#include "deq/base/printable.h"
#include "deq/files/sha256.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;
using testing::Scratch;
using testing::spill;

TEST(Sha256Test, KnownDigests) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  Scratch scratch;
  const std::string million(1000000, 'a');
  spill(scratch / "x", million + million);
  EXPECT_EQ(sha256_hex(million),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_EQ(sha256_hex_of_file(scratch / "x"), sha256_hex(million + million));
  Sha256 pieces;
  pieces.update("a");
  pieces.update("");
  pieces.update("bc");
  EXPECT_EQ(pieces.hex(), sha256_hex("abc"));
}

TEST(Printable, IsOneShortLineOfUtf8) {
  EXPECT_EQ(printable("plain gr\u00fc\u00df"), "plain gr\u00fc\u00df");
  EXPECT_EQ(printable("a\n\x1b[1m\"b\""), "a\\n\\u001b[1m\\\"b\\\"");
  EXPECT_EQ(printable("a\xff z"), "a\ufffd z");
  EXPECT_EQ(printable(std::string(100, 'x'), 10), "xxxxxxxxxx...");
  EXPECT_EQ(printable("123\u00fc456", 4), "123...");  // not half of a letter
  EXPECT_EQ(printable(""), "");
}

}  // namespace
}  // namespace deq
