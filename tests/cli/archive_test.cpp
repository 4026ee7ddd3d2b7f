// Data sets that come as an archive.
#include <gtest/gtest.h>

#include "deq/files/sha256.h"
#include "tests/base/scratch.h"
#include "tests/cli/command.h"
#include "tests/cli/http_server.h"

namespace deq {
namespace {

using testing::HttpServer;
using testing::Output;
using testing::run_deq;
using testing::Scratch;
using testing::slurp;
using testing::spill;

std::string little(uint64_t value, int count) {
  std::string bytes;
  for (int i = 0; i < count; ++i) bytes += i < 8 ? static_cast<char>(value >> 8 * i) : '\0';
  return bytes;
}

uint32_t crc32(const std::string& text) {
  uint32_t crc = ~0u;
  for (const unsigned char byte : text) {
    crc ^= byte;
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  return ~crc;
}

/// A ZIP archive whose members are one uncompressed deflate block each.
std::string zip(const std::map<std::string, std::string>& members) {
  std::string out, directory;
  for (const auto& [name, text] : members) {
    const uint64_t size = text.size();
    const std::string packed = "\1" + little(size, 2) + little(~size, 2) + text;
    const std::string facts = little(20, 2) + little(0, 2) + little(8, 2) + little(0, 4) +
                              little(crc32(text), 4) + little(packed.size(), 4) + little(size, 4) +
                              little(name.size(), 2) + little(0, 2);
    directory += "PK\1\2" + little(20, 2) + facts + little(0, 10) + little(out.size(), 4) + name;
    out += "PK\3\4" + facts + name + packed;
  }
  return out + directory + "PK\5\6" + little(0, 4) + little(members.size(), 2) +
         little(members.size(), 2) + little(directory.size(), 4) + little(out.size(), 4) +
         little(0, 2);
}

Output fetch_archive(const Scratch& scratch, const std::string& archive) {
  HttpServer server({{"/wikitext-103-v1.zip", HttpServer::ok(archive)}});
  return run_deq(fmt::format("data fetch wikitext-103 --to '{}' --url {} --sha256 {} 2>&1",
                             scratch.folder().string(), server.url(), sha256_hex(archive)));
}

TEST(DataArchive, UnpacksAnArchive) {
  const std::map<std::string, std::string> members = {{"wikitext-103/", ""},
                                                      {"wikitext-103/wiki.train.tokens", " a b \n"},
                                                      {"wikitext-103/wiki.valid.tokens", " b \n"},
                                                      {"wikitext-103/wiki.test.tokens", ""}};
  Scratch scratch;
  const Output output = fetch_archive(scratch, zip(members));
  EXPECT_EQ(output.exit_code, 0) << output.text;
  EXPECT_EQ(scratch.names(), (std::vector<std::string>{"wiki.test.tokens", "wiki.train.tokens",
                                                       "wiki.valid.tokens"}));
  EXPECT_EQ(slurp(scratch / "wiki.train.tokens"), " a b \n");
  EXPECT_EQ(slurp(scratch / "wiki.valid.tokens"), " b \n");
}

// They have no sums of their own: only the archive's says that they are what they should be.
TEST(DataArchive, MembersThatAreThereDoNotStandInForIt) {
  Scratch scratch;
  for (const char* name : {"wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"})
    spill(scratch / name, "something else");
  HttpServer server({{"/wikitext-103-v1.zip", HttpServer::ok("no archive")}});
  const Output output = run_deq(fmt::format("data fetch wikitext-103 --to '{}' --url {} 2>&1",
                                            scratch.folder().string(), server.url()));
  EXPECT_EQ(output.exit_code, 1) << output.text;
  EXPECT_EQ(server.requests(), 1);
  EXPECT_EQ(slurp(scratch / "wiki.train.tokens"), "something else");
}

TEST(DataArchive, RefusesADamagedArchive) {
  const std::string good =
      zip({{"wiki.train.tokens", "aaaa"}, {"wiki.valid.tokens", "b"}, {"wiki.test.tokens", "c"}});
  Scratch scratch;
  EXPECT_SAYS(fetch_archive(scratch, "no archive").text, "it has no directory; expected a ZIP");
  EXPECT_SAYS(fetch_archive(scratch, zip({{"wiki.train.tokens", "a"}})).text,
              "it has no 'wiki.valid.tokens'");
  std::string flipped = good;
  flipped[good.find("aaaa")] = 'b';
  EXPECT_SAYS(fetch_archive(scratch, flipped).text, "'wiki.train.tokens' is damaged");
  // A size, the offset of a member, the offset of the directory.
  const size_t central = good.find("PK\1\2"), end = good.find("PK\5\6");
  for (const size_t at : {central + 24, central + 42, end + 17}) {
    std::string bad = good;
    bad[at] = static_cast<char>(bad[at] ^ 0x81);
    const Output output = fetch_archive(scratch, bad);
    EXPECT_EQ(output.exit_code, 1) << at - central << output.text;
    EXPECT_SAYS(output.text, "expected a ZIP archive");
  }
}

}  // namespace
}  // namespace deq
