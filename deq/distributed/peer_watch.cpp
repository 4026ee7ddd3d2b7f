#include "deq/distributed/peer_watch.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <memory>

#include "deq/base/error.h"

namespace deq {
namespace {

constexpr char kFarewell = 'F';

using Addresses = std::unique_ptr<addrinfo, void (*)(addrinfo*)>;

Addresses numeric(const std::string& address, const std::string& port) {
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_STREAM;
  wanted.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(address.c_str(), port.c_str(), &wanted, &found);
  DEQ_CHECK(error == 0, "address {} {}: {}", address, port, gai_strerror(error));
  return {found, freeaddrinfo};
}

/// Whether something can be done on a socket within so many seconds.
bool comes(int socket, short what, double timeout) {
  pollfd wanted{socket, what, 0};
  return ::poll(&wanted, 1, int(timeout * 1000)) == 1;
}

int connect_to(const std::string& place, double timeout) {
  const size_t space = place.find(' ');
  const Addresses where = numeric(place.substr(0, space), place.substr(space + 1));
  const int s = ::socket(where->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  DEQ_CHECK(s >= 0, "a socket: {}", std::strerror(errno));
  timeval limit{time_t(timeout), suseconds_t((timeout - double(time_t(timeout))) * 1e6)};
  ::setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);  // connect's, too
  if (::connect(s, where->ai_addr, where->ai_addrlen) == 0) return s;
  const std::string why = std::strerror(errno == EINPROGRESS ? ETIMEDOUT : errno);
  ::close(s);
  throw Error(fmt::format("{}: {}", place, why));
}

}  // namespace

Listener::Listener(const std::string& address) {
  const Addresses where = numeric(address, "0");
  socket_ = ::socket(where->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool listens = socket_ >= 0 && ::bind(socket_, where->ai_addr, where->ai_addrlen) == 0 &&
                       ::listen(socket_, SOMAXCONN) == 0;
  DEQ_CHECK(listens, "address {}: cannot listen: {}", address, std::strerror(errno));
}

Listener::~Listener() { ::close(socket_); }

std::string Listener::place() const {
  sockaddr_storage own{};
  socklen_t size = sizeof own;
  auto* any = reinterpret_cast<sockaddr*>(&own);
  char host[NI_MAXHOST], port[NI_MAXSERV];
  ::getsockname(socket_, any, &size);
  ::getnameinfo(any, size, host, sizeof host, port, sizeof port, NI_NUMERICHOST | NI_NUMERICSERV);
  return std::string(host) + " " + port;
}

int Listener::accept(double timeout) const {
  DEQ_CHECK(comes(socket_, POLLIN, timeout), "nobody came within {} s", timeout);
  const int s = ::accept4(socket_, nullptr, nullptr, SOCK_CLOEXEC);
  DEQ_CHECK(s >= 0, "cannot accept: {}", std::strerror(errno));
  return s;
}

PeerWatch::PeerWatch(int64_t rank, const std::vector<std::string>& places, const Listener& mine,
                     double timeout, std::function<void(int64_t rank)> gone)
    : sockets_(places.size(), -1), gone_(std::move(gone)) {
  for (int64_t other = 0; other < rank; ++other) {  // the higher rank connects, and says who it is
    try {
      sockets_[size_t(other)] = connect_to(places[size_t(other)], timeout);
    } catch (const Error& error) {
      throw Error(fmt::format("rank {} cannot reach rank {} at {}", rank, other, error.what()));
    }
    DEQ_CHECK(::send(sockets_[size_t(other)], &rank, sizeof rank, MSG_NOSIGNAL) == sizeof rank,
              "rank {} cannot reach rank {}: {}", rank, other, std::strerror(errno));
  }
  for (size_t count = size_t(rank) + 1; count < places.size(); ++count) {
    const int s = mine.accept(timeout);
    int64_t other = -1;
    DEQ_CHECK(comes(s, POLLIN, timeout) &&
                  ::recv(s, &other, sizeof other, MSG_WAITALL) == sizeof other && other > rank &&
                  other < int64_t(places.size()) && sockets_[size_t(other)] < 0,
              "rank {}: somebody connected who is none of {} processes", rank, places.size());
    sockets_[size_t(other)] = s;
  }
  DEQ_CHECK(::pipe(wake_) == 0, "a pipe: {}", std::strerror(errno));
  thread_ = std::thread([this] { watch(); });
}

void PeerWatch::watch() {
  std::vector<int> open = sockets_;
  for (;;) {
    std::vector<pollfd> wanted{{wake_[0], POLLIN, 0}};
    std::vector<size_t> ranks;
    for (size_t r = 0; r < open.size(); ++r) {
      if (open[r] < 0) continue;
      wanted.push_back({open[r], POLLIN, 0});
      ranks.push_back(r);
    }
    if (::poll(wanted.data(), wanted.size(), -1) < 0) continue;
    if (wanted[0].revents != 0) return;
    for (size_t i = 1; i < wanted.size(); ++i) {
      if (wanted[i].revents == 0) continue;
      const size_t r = ranks[i - 1];
      char said = 0;
      const bool farewell = ::recv(open[r], &said, 1, 0) == 1 && said == kFarewell;
      open[r] = -1;
      if (!farewell) gone_(int64_t(r));
    }
  }
}

void PeerWatch::leave() {
  for (const int s : sockets_) {
    if (s >= 0) (void)!::send(s, &kFarewell, 1, MSG_NOSIGNAL);
  }
}

PeerWatch::~PeerWatch() {
  if (thread_.joinable()) {
    (void)!::write(wake_[1], "", 1);
    thread_.join();
  }
  for (const int s : sockets_) {
    if (s >= 0) ::close(s);
  }
  for (const int end : wake_) {
    if (end >= 0) ::close(end);
  }
}

}  // namespace deq
