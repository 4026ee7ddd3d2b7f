// deq data against a server that misbehaves. What stood in the folder must survive every failure.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "deq/base/files.h"
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

const std::string kText = "First Citizen:\nBefore we proceed any further, hear me speak.\n";
const std::string kOld = "what was there";

/// A folder with an old input.txt, and `deq data fetch tiny-shakespeare` into it.
struct Fetch {
  Scratch scratch;

  Fetch() { spill(scratch / "input.txt", kOld); }
  Output operator()(const std::string& url, const std::string& sha256) const {
    return run_deq(fmt::format("data fetch tiny-shakespeare --to '{}' --url '{}' --sha256 {} 2>&1",
                               scratch.folder().string(), url, sha256));
  }
  void expect_unchanged() const {
    EXPECT_EQ(scratch.names(), std::vector<std::string>{"input.txt"});
    EXPECT_EQ(slurp(scratch / "input.txt"), kOld);
  }
};

TEST(DataFetch, ReplacesTheFileOnceItsSumIsRight) {
  HttpServer server({{"/input.txt", HttpServer::ok(kText)}});
  Fetch fetch;
  const Output first = fetch(server.url() + "/", sha256_hex(kText));
  EXPECT_EQ(first.exit_code, 0) << first.text;
  EXPECT_SAYS(first.text, fmt::format("{} bytes", kText.size()));
  EXPECT_EQ(first.text.find('\r'), std::string::npos) << "a progress line for no terminal";
  EXPECT_EQ(slurp(fetch.scratch / "input.txt"), kText);
  EXPECT_EQ(server.requests(), 1);
  EXPECT_SAYS(fetch(server.url(), sha256_hex(kText)).text, "already there");
  EXPECT_EQ(server.requests(), 1);
  EXPECT_EQ(fetch.scratch.names().size(), 1u);
}

TEST(DataFetch, RefusesAnotherSum) {
  HttpServer server({{"/input.txt", HttpServer::ok(kText)}});
  Fetch fetch;
  const std::string expected = sha256_hex("other");
  const Output output = fetch(server.url(), expected);
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_SAYS(output.text, "has SHA-256 " + sha256_hex(kText) + "; expected " + expected);
  fetch.expect_unchanged();
}

TEST(DataFetch, ChecksTheKnownSumWithoutBeingTold) {
  HttpServer server({{"/input.txt", HttpServer::ok(kText)}});
  Scratch scratch;
  const Output output = run_deq(fmt::format("data fetch tiny-shakespeare --to '{}' --url {} 2>&1",
                                            scratch.folder().string(), server.url()));
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_SAYS(output.text, "expected 86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e");
  EXPECT_TRUE(scratch.names().empty());
}

TEST(DataFetch, FailsOnWhatIsNotAWholeAnswer) {
  const std::string whole = HttpServer::ok(kText);
  const std::string sum = sha256_hex(kText);
  HttpServer server({{"/cut/input.txt", whole.substr(0, whole.size() - 9)},
                     {"/broken/input.txt", "HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n"},
                     {"/local/input.txt",
                      "HTTP/1.1 302 Found\r\nLocation: file:///etc/hostname\r\n"
                      "Content-Length: 0\r\n\r\n"},
                     {"/loop/input.txt",
                      "HTTP/1.1 302 Found\r\nLocation: /loop/input.txt\r\n"
                      "Content-Length: 0\r\nConnection: close\r\n\r\n"},
                     {"/none/input.txt", ""}});
  Fetch fetch;
  const auto says = [&](const std::string& folder) {
    const Output output = fetch(server.url() + folder, sum);
    EXPECT_EQ(output.exit_code, 1) << folder;
    EXPECT_SAYS(output.text, "error: cannot download " + server.url() + folder);
    EXPECT_EQ(std::count(output.text.begin(), output.text.end(), '\n'), 1) << output.text;
    fetch.expect_unchanged();
    return output.text;
  };
  EXPECT_SAYS(says("/absent"), "404");
  EXPECT_SAYS(says("/broken"), "500");
  EXPECT_SAYS(says("/cut"), "9 bytes remaining");
  EXPECT_SAYS(says("/local"), "not supported");
  EXPECT_SAYS(says("/loop"), "redirects");
  EXPECT_SAYS(says("/none"), "Empty reply");
}

TEST(DataFetch, FollowsARedirect) {
  HttpServer server({{"/old/input.txt",
                      "HTTP/1.1 301 Moved\r\nLocation: /new.txt\r\n"
                      "Content-Length: 0\r\nConnection: close\r\n\r\n"},
                     {"/new.txt", HttpServer::ok(kText)}});
  Fetch fetch;
  EXPECT_EQ(fetch(server.url() + "/old", sha256_hex(kText)).exit_code, 0);
  EXPECT_EQ(slurp(fetch.scratch / "input.txt"), kText);
}

TEST(DataFetch, FailsWhereNobodyListens) {
  std::string url;
  { url = HttpServer({}).url(); }
  Fetch fetch;
  const Output output = fetch(url, sha256_hex(kText));
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_SAYS(output.text, "cannot download " + url);
  fetch.expect_unchanged();
  EXPECT_SAYS(fetch("file:///etc", sha256_hex(kText)).text, "not supported");
  EXPECT_SAYS(fetch("no url", sha256_hex(kText)).text, "cannot download no url");
  fetch.expect_unchanged();
}

TEST(DataFetch, FailsWhenTheDiskIsFull) {
  const std::string large(size_t{1} << 20, 'a');
  HttpServer server({{"/input.txt", HttpServer::ok(large)}});
  Fetch fetch;
  // A limit on file sizes stands in for the end of the disk; the command inherits it.
  rlimit before{};
  getrlimit(RLIMIT_FSIZE, &before);
  const rlimit small{.rlim_cur = 100000, .rlim_max = before.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  const Output output = fetch(server.url(), sha256_hex(large));
  std::signal(SIGXFSZ, handler);
  setrlimit(RLIMIT_FSIZE, &before);
  EXPECT_EQ(output.exit_code, 1);
  EXPECT_SAYS(output.text, "cannot write '");
  fetch.expect_unchanged();
}

void expect_removed_on(int signal) {
  SCOPED_TRACE(signal);
  std::string half = HttpServer::ok(kText);
  half.replace(half.find("close"), 5, "keep-alive");
  half.resize(half.size() - 9);
  HttpServer server({{"/input.txt", half}});
  Fetch fetch;
  const std::string to = fetch.scratch.folder().string(), url = server.url();
  const pid_t child = ::fork();
  if (child == 0) {
    ::execl(DEQ_BINARY, "deq", "data", "fetch", "tiny-shakespeare", "--to", to.c_str(), "--url",
            url.c_str(), nullptr);
    ::_exit(127);
  }
  for (int tenths = 0; tenths < 1200 && server.requests() == 0; ++tenths) ::usleep(100000);
  EXPECT_EQ(server.requests(), 1);
  ::kill(child, signal);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 1) << status;
  fetch.expect_unchanged();
}

TEST(DataFetch, RemovesTheTemporaryOnInterrupt) {
  expect_removed_on(SIGINT);
  expect_removed_on(SIGTERM);
}

TEST(DataFetch, DoesNotFailWhereItsProgressCannotBeShown) {
  const std::string large(size_t{3} << 20, 'a');
  HttpServer server({{"/input.txt", HttpServer::ok(large)}});
  Scratch scratch;
  const Output output =
      run_deq(fmt::format("data fetch tiny-shakespeare --to '{}' --url {} --sha256 {} 2>/dev/full",
                          scratch.folder().string(), server.url(), sha256_hex(large)));
  EXPECT_EQ(output.exit_code, 0);
  EXPECT_EQ(slurp(scratch / "input.txt"), large);
}

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

TEST(DataFetch, UnpacksAnArchive) {
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

TEST(DataFetch, DoesNotAskForAnArchiveWhoseMembersAreThere) {
  HttpServer server({{"/wikitext-103-v1.zip", HttpServer::ok("no archive")}});
  Scratch scratch;
  const auto fetch = [&](const std::string& more) {
    return run_deq(fmt::format("data fetch wikitext-103 --to '{}' --url {} {} 2>&1",
                               scratch.folder().string(), server.url(), more));
  };
  spill(scratch / "wiki.train.tokens", " a \n");
  spill(scratch / "wiki.valid.tokens", " b \n");
  EXPECT_EQ(fetch("").exit_code, 1);  // one is missing
  EXPECT_EQ(server.requests(), 1);
  spill(scratch / "wiki.test.tokens", " c \n");
  const Output output = fetch("");
  EXPECT_EQ(output.exit_code, 0) << output.text;
  EXPECT_SAYS(output.text, "wiki.test.tokens  4 bytes, already there");
  EXPECT_EQ(server.requests(), 1);
  EXPECT_EQ(fetch("--sha256 " + sha256_hex("another")).exit_code, 1);  // another archive
  EXPECT_EQ(server.requests(), 2);
}

TEST(DataFetch, RefusesADamagedArchive) {
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

TEST(DataFetch, KnownSumsAreThoseOfTheFiles) {
  const char* data = std::getenv("DEQ_DATA_DIR");
  if (!data) GTEST_SKIP() << "DEQ_DATA_DIR is not set";
  const std::filesystem::path folder(data);
  std::map<std::string, std::string> answers;
  for (const std::string path :
       {"/ptb/ptb.train.txt", "/ptb/ptb.valid.txt", "/ptb/ptb.test.txt", "/wikitext-2/train.txt",
        "/wikitext-2/valid.txt", "/wikitext-2/test.txt", "/tiny-shakespeare/input.txt"}) {
    std::string on_disk = path;
    if (on_disk.rfind("/tiny-", 0) == 0) on_disk.erase(on_disk.find('-'), 1);
    answers[path] = HttpServer::ok(slurp(folder / on_disk.substr(1)));
  }
  HttpServer server(answers);
  for (const std::string name : {"ptb", "wikitext-2", "tiny-shakespeare"}) {
    Scratch scratch;
    const Output output = run_deq(fmt::format("data fetch {} --to '{}/new' --url {}/{} 2>&1", name,
                                              scratch.folder().string(), server.url(), name));
    EXPECT_EQ(output.exit_code, 0) << output.text;
  }
}

TEST(DataFetch, ExplainsItsUse) {
  EXPECT_EQ(run_deq("data 2>&1").exit_code, 2);
  const Output unknown = run_deq("data fetch penn 2>&1");
  EXPECT_EQ(unknown.exit_code, 2);
  EXPECT_SAYS(unknown.text, "wikitext-2");
  EXPECT_SAYS(run_deq("data fetch ptb --sha256 00 2>&1").text, "data sets of one file; ptb has 3");
  EXPECT_SAYS(run_deq("data fetch ptb --to /dev/null/x 2>&1").text, "cannot make the folder");
  const Output list = run_deq("data list");
  for (const char* name : {"ptb", "wikitext-2", "wikitext-103", "tiny-shakespeare"}) {
    EXPECT_SAYS(list.text, name);
  }
}

TEST(DataInfo, CountsAndMeasures) {
  Scratch scratch;
  spill(scratch / "train.txt", "a b\na a\n");
  spill(scratch / "valid.txt", "a\n");
  spill(scratch / "test.txt", "b b\n");
  const std::string folder = "data info '" + scratch.folder().string() + "'";
  const Output words = run_deq(folder + " --task words");
  EXPECT_EQ(words.exit_code, 0);
  EXPECT_SAYS(words.text, "vocabulary  3 words");
  EXPECT_SAYS(words.text, "train       6 words");
  // a: (3 + 1) / (6 + 3), <eos>: (2 + 1) / 9; the mean of -log2 of both
  EXPECT_SAYS(words.text, "valid       2 words, unigram entropy 1.3774 bits per word");
  EXPECT_SAYS(run_deq(folder + " --task characters").text, "test        4 characters");
  EXPECT_SAYS(run_deq(folder + " --task words --task-min-count 2").text, "vocabulary  3 words");
  const Output wrong = run_deq(folder + " --task word 2>&1");
  EXPECT_EQ(wrong.exit_code, 1);
  EXPECT_SAYS(wrong.text, "unknown task 'word'; known: words, bytes, characters, copy-memory");
  EXPECT_SAYS(run_deq("data info '" + (scratch / "train.txt").string() + "' 2>&1").text,
              "tasks bytes and characters read single files");
  EXPECT_SAYS(run_deq("data info 2>&1").text, "error: data is not set; expected a text file");
}

TEST(DataInfo, OfSequences) {
  const Output copy = run_deq("data info --task copy-memory --task-delay 100");
  EXPECT_EQ(copy.exit_code, 0);
  EXPECT_SAYS(copy.text, "vocabulary  10 symbols");
  // 10 ln 8 / 120 = 0.1733
  EXPECT_SAYS(copy.text, "test        2000 sequences of 120 symbols, entropy by position 0.173");
  const Output wrong = run_deq("data info data/ptb --task copy-memory 2>&1");
  EXPECT_EQ(wrong.exit_code, 1);
  EXPECT_SAYS(wrong.text, "error: data = 'data/ptb'; expected none");
}

}  // namespace
}  // namespace deq
