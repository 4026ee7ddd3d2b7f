// By which address the others reach this machine.
#pragma once

#include <string>

namespace deq {

/// The address of this machine on the way to `master`; of the first interface that
/// GLOO_SOCKET_IFNAME names, where it is set. (The machine's own name may stand for 127.0.0.1,
/// which is where c10d looks.) Throws deq::Error for a host that nobody knows.
std::string own_address(const std::string& master);

}  // namespace deq
