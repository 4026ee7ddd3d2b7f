// Whether memory still holds what it held, at the speed of reading it once.
#pragma once

#include <cstdint>

namespace deq::ops {

/// 64 bits of `bytes` bytes and of how many they are. Different contents share them once in about
/// 2^64, unless somebody looks for such a pair: this tells mistakes, not attacks. The same on any
/// number of threads; not from one processor to another.
uint64_t checksum(const void* data, int64_t bytes);

/// One of several in their order.
uint64_t joined(uint64_t checksum, uint64_t next);

}  // namespace deq::ops
