// deq data against a server that misbehaves. What stood in the folder must survive every failure.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

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
  EXPECT_SAYS(says("/cut"), "9 bytes");
  EXPECT_SAYS(says("/local"), "Protocol");
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
  EXPECT_SAYS(fetch("file:///etc", sha256_hex(kText)).text, "Protocol");
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
    testing::end_in_time();
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

}  // namespace
}  // namespace deq
