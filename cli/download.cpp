#include "cli/download.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>
#include <exception>
#include <memory>
#include <string>
#include <utility>

#include "cli/interrupt.h"
#include "deq/base/error.h"
#include "deq/base/printable.h"
#include "deq/files/files.h"
#include "deq/files/sha256.h"

namespace deq::cli {
namespace {

constexpr int64_t kWorthShowing = 1000000;  // bytes

/// A line that is rewritten on a terminal; elsewhere one line for each tenth. A download does not
/// fail because nobody can read it: not fmt::print, which throws.
class ByteProgress {
 public:
  explicit ByteProgress(std::string name) : name_(std::move(name)) {}
  ~ByteProgress() {
    if (terminal_ && shown_ >= 0) std::fputs("\r\033[K", stderr);
  }

  void show(int64_t done, int64_t total) {
    if (total < kWorthShowing) return;
    const int64_t step = done * (terminal_ ? 100 : 10) / total;
    if (step == shown_ || (!terminal_ && step == 0)) return;
    shown_ = step;
    const std::string line =
        fmt::format("{}  {}: {:.1f} of {:.1f} MB{}", terminal_ ? "\r\033[K" : "", name_,
                    double(done) / 1e6, double(total) / 1e6, terminal_ ? "" : "\n");
    std::fputs(line.c_str(), stderr);
    std::fflush(stderr);
  }

 private:
  std::string name_;
  bool terminal_ = ::isatty(STDERR_FILENO) == 1;
  int64_t shown_ = -1;
};

struct Transfer {
  FileWriter writer;
  Sha256 sum;
  ByteProgress progress;
  uint64_t bytes = 0;
  std::exception_ptr failure;  // libcurl is C: an exception must not pass through it
};

size_t receive(char* from, size_t size, size_t count, void* user) {
  auto& transfer = *static_cast<Transfer*>(user);
  try {
    transfer.writer.write(from, size * count);
    transfer.sum.update(from, size * count);
    transfer.bytes += size * count;
    return size * count;
  } catch (...) {
    transfer.failure = std::current_exception();
    return CURL_WRITEFUNC_ERROR;
  }
}

int report(void* user, curl_off_t total, curl_off_t done, curl_off_t, curl_off_t) {
  auto& transfer = *static_cast<Transfer*>(user);
  try {
    transfer.progress.show(done, total);
    return interrupt_flag() ? 1 : 0;  // other than 0 ends the transfer
  } catch (...) {
    transfer.failure = std::current_exception();
    return 1;
  }
}

void perform(const std::string& url, Transfer& transfer) {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  const std::unique_ptr<CURL, void (*)(CURL*)> curl(curl_easy_init(), curl_easy_cleanup);
  DEQ_CHECK(ready == CURLE_OK && curl, "libcurl cannot be started");
  char detail[CURL_ERROR_SIZE] = "";
  const auto set = [&](CURLoption option, auto value) {
    const CURLcode code = curl_easy_setopt(curl.get(), option, value);
    DEQ_CHECK(code == CURLE_OK, "libcurl: {}", curl_easy_strerror(code));
  };
  set(CURLOPT_URL, url.c_str());
  set(CURLOPT_PROTOCOLS_STR, "http,https");
  set(CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
  set(CURLOPT_FOLLOWLOCATION, 1L);
  set(CURLOPT_MAXREDIRS, 5L);
  set(CURLOPT_FAILONERROR, 1L);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_CONNECTTIMEOUT, 30L);
  set(CURLOPT_LOW_SPEED_LIMIT, 1L);  // bytes a second
  set(CURLOPT_LOW_SPEED_TIME, 60L);
  set(CURLOPT_USERAGENT, "deq/" DEQ_VERSION);
  set(CURLOPT_ERRORBUFFER, detail);
  set(CURLOPT_WRITEFUNCTION, receive);
  set(CURLOPT_WRITEDATA, &transfer);
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, report);
  set(CURLOPT_XFERINFODATA, &transfer);
  const CURLcode code = curl_easy_perform(curl.get());
  if (transfer.failure) std::rethrow_exception(transfer.failure);
  DEQ_CHECK(!interrupt_flag(), "interrupted; nothing was changed");
  DEQ_CHECK(code == CURLE_OK, "cannot download {}: {}", printable(url, 400),
            printable(*detail ? detail : curl_easy_strerror(code), 200));
}

}  // namespace

uint64_t download(const std::string& url, const std::filesystem::path& target,
                  const std::string& sha256) {
  interrupt_flag();  // from here on a signal lets the temporary be removed on the way out
  Transfer transfer{.writer = FileWriter(target),
                    .sum = {},
                    .progress = ByteProgress(target.filename().string()),
                    .bytes = 0,
                    .failure = nullptr};
  perform(url, transfer);
  const std::string sum = transfer.sum.hex();
  DEQ_CHECK(sum == sha256, "{} has SHA-256 {}; expected {}; nothing was changed",
            printable(url, 400), sum, sha256);
  transfer.writer.commit();
  return transfer.bytes;
}

}  // namespace deq::cli
