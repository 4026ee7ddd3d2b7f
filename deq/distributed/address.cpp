#include "deq/distributed/address.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>

#include "deq/base/error.h"

namespace deq {
namespace {

std::string text_of(const sockaddr* address, socklen_t size) {
  char text[NI_MAXHOST];
  DEQ_CHECK(getnameinfo(address, size, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0,
            "an address of this machine; expected one that can be written as numbers");
  return text;
}

std::string address_of_interface(const std::string& name) {
  ifaddrs* all = nullptr;
  DEQ_CHECK(getifaddrs(&all) == 0, "interfaces of this machine: {}", std::strerror(errno));
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owned(all, freeifaddrs);
  for (const ifaddrs* one = all; one; one = one->ifa_next) {
    if (!one->ifa_addr || name != one->ifa_name) continue;
    if (one->ifa_addr->sa_family == AF_INET) return text_of(one->ifa_addr, sizeof(sockaddr_in));
  }
  throw Error(fmt::format(
      "GLOO_SOCKET_IFNAME = {}: this machine has no such interface with an address", name));
}

}  // namespace

std::string own_address(const std::string& master) {
  if (const char* set = std::getenv("GLOO_SOCKET_IFNAME"); set && *set) {
    const std::string names = set;
    return address_of_interface(names.substr(0, names.find(',')));
  }
  addrinfo wanted{};
  wanted.ai_socktype = SOCK_DGRAM;
  addrinfo* found = nullptr;
  const int error = getaddrinfo(master.c_str(), "9", &wanted, &found);
  DEQ_CHECK(error == 0, "MASTER_ADDR = {}: {}", master, gai_strerror(error));
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, freeaddrinfo);
  int failure = 0;
  for (const addrinfo* one = found; one; one = one->ai_next) {
    const int s = ::socket(one->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (s < 0) continue;
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    auto* any = reinterpret_cast<sockaddr*>(&own);
    const bool reached =
        ::connect(s, one->ai_addr, one->ai_addrlen) == 0 && ::getsockname(s, any, &size) == 0;
    failure = errno;
    ::close(s);
    if (reached) return text_of(any, size);
  }
  throw Error(fmt::format("MASTER_ADDR = {}: no way there: {}", master, std::strerror(failure)));
}

}  // namespace deq
