// Compiled once per SIMD target (Highway).
//
// Each lane, 64 bits of state s, takes in one word x after the other: with t = s xor x,
//   s <- K (t mod 2^32) + L floor(t / 2^32)  mod 2^64.
// Both halves are multiplied, so that one changed bit becomes a change of many, which no change of
// one number, or of its sign, takes back in a later word. (An odd factor of the whole word would
// leave a flipped sign where it is.)
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "deq/ops/checksum.cpp"
#include "deq/ops/checksum.h"

#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cstring>

HWY_BEFORE_NAMESPACE();
namespace deq::ops::HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;
constexpr uint32_t kLow = 0xfffeb81b, kHigh = 0x9e3779b1;
constexpr int64_t kMostLanes = 4 * HWY_MAX_BYTES / 8;

/// Takes in whole steps of words; returns how many. Leaves the lanes' states, of which there are
/// `lanes`, a step.
#if HWY_TARGET == HWY_SCALAR
int64_t take(const uint64_t* from, int64_t words, uint64_t* state, int64_t& lanes) {
  uint64_t s = *state;
  for (int64_t i = 0; i < words; ++i) {
    uint64_t x;
    std::memcpy(&x, from + i, sizeof(x));
    const uint64_t t = s ^ x;
    s = (t & 0xffffffff) * kLow + (t >> 32) * kHigh;
  }
  *state = s;
  lanes = 1;
  return words;
}
#else
int64_t take(const uint64_t* from, int64_t words, uint64_t* state, int64_t& lanes) {
  const hn::ScalableTag<uint64_t> d;
  const hn::Repartition<uint32_t, decltype(d)> halves;
  const int64_t L = int64_t(hn::Lanes(d));
  const auto low = hn::Set(halves, kLow), high = hn::Set(halves, kHigh);
  const auto next = [&](auto s, const uint64_t* x) {
    const auto t = hn::Xor(s, hn::LoadU(d, x));
    return hn::Add(hn::MulEven(hn::BitCast(halves, t), low),
                   hn::MulEven(hn::BitCast(halves, hn::ShiftRight<32>(t)), high));
  };
  // Four vectors, that hide each other's delay.
  auto a = hn::LoadU(d, state), b = hn::LoadU(d, state + L);
  auto c = hn::LoadU(d, state + 2 * L), e = hn::LoadU(d, state + 3 * L);
  int64_t i = 0;
  for (; i + 4 * L <= words; i += 4 * L) {
    a = next(a, from + i);
    b = next(b, from + i + L);
    c = next(c, from + i + 2 * L);
    e = next(e, from + i + 3 * L);
  }
  hn::StoreU(a, d, state);
  hn::StoreU(b, d, state + L);
  hn::StoreU(c, d, state + 2 * L);
  hn::StoreU(e, d, state + 3 * L);
  lanes = 4 * L;
  return i;
}
#endif

uint64_t checksum(const void* data, int64_t bytes) {
  uint64_t state[kMostLanes], rest[kMostLanes + 1] = {};
  for (int64_t lane = 0; lane < kMostLanes; ++lane) state[lane] = uint64_t(lane + 1);
  int64_t lanes = 0;
  const int64_t taken = 8 * take(static_cast<const uint64_t*>(data), bytes / 8, state, lanes);
  std::memcpy(rest, static_cast<const char*>(data) + taken, size_t(bytes - taken));
  take(rest, lanes, state, lanes);
  uint64_t all = uint64_t(bytes);
  for (int64_t lane = 0; lane < lanes; ++lane) all = joined(all, state[lane]);
  return all;
}

}  // namespace deq::ops::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace deq::ops {
HWY_EXPORT(checksum);

uint64_t joined(uint64_t checksum, uint64_t next) {
  const uint64_t mixed = (checksum ^ next) * 0x9e3779b97f4a7c15;  // 2^64 over the golden ratio
  return mixed ^ (mixed >> 29);
}

uint64_t checksum(const void* data, int64_t bytes) {
  return HWY_DYNAMIC_DISPATCH(checksum)(data, bytes);
}

}  // namespace deq::ops
#endif
