// The store of c10d in which processes find each other. For sources that are built with c10d.
#pragma once

#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <cstdint>
#include <exception>
#include <string>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

namespace deq {

/// Serves it at `address`, or reaches the one that is served there; port 0 is a free one. Waits for
/// nobody else. Throws what c10d throws.
c10::intrusive_ptr<c10d::TCPStore> open_store(const std::string& address, int64_t port, bool serves,
                                              std::chrono::milliseconds timeout);

/// The first line of what c10d says, without its source and its traces.
std::string reason_of(const std::exception& error);

}  // namespace deq
