#ifdef DEQ_WITH_DISTRIBUTED
#include "deq/distributed/c10d_store.h"

#include <c10/util/Exception.h>

namespace deq {
namespace {

/// libuv is newer LibTorch's default, whether it was built with it or not.
template <class Options>
Options without_libuv(Options options) {
  if constexpr (requires { options.useLibUV; }) options.useLibUV = false;
  return options;
}

}  // namespace

c10::intrusive_ptr<c10d::TCPStore> open_store(const std::string& address, int64_t port, bool serves,
                                              std::chrono::milliseconds timeout) {
  c10d::TCPStoreOptions options;
  options.port = uint16_t(port);
  options.isServer = serves;
  options.waitWorkers = false;
  options.timeout = timeout;
  return c10::make_intrusive<c10d::TCPStore>(address, without_libuv(options));
}

std::string reason_of(const std::exception& error) {
  const auto* torch = dynamic_cast<const c10::Error*>(&error);
  std::string text = torch ? torch->what_without_backtrace() : error.what();
  text = text.substr(0, text.find('\n'));
  // Gloo: "[./source.cc:123] Connection closed by peer [::1]:4567"
  if (const size_t end = text.find("] "); text.rfind("[", 0) == 0 && end != text.npos)
    text = text.substr(end + 2);
  // The store: "... failed to bind to [::]:29500 (errno: 98 - Address already in use). ..."
  if (const size_t number = text.rfind("(errno: "); number != text.npos) {
    const size_t begin = text.find(" - ", number), end = text.find(')', number);
    if (begin != text.npos && end != text.npos && begin < end)
      return text.substr(begin + 3, end - begin - 3);
  }
  if (const size_t advice = text.find(". This may indicate"); advice != text.npos)
    text = text.substr(0, advice);
  return text;
}

}  // namespace deq
#endif
