#include "deq/distributed/rendezvous.h"

#include <charconv>
#include <cstdlib>
#include <cstring>

#include "deq/base/error.h"

namespace deq {
namespace {

std::optional<std::string> variable(const char* name) {
  const char* value = std::getenv(name);
  if (!value || !*value) return std::nullopt;
  return value;
}

std::string require(const char* name, const char* what) {
  const auto value = variable(name);
  DEQ_CHECK(value, "{} is not set beside WORLD_SIZE; expected {}", name, what);
  return *value;
}

int64_t number(const char* name, const std::string& value, int64_t low, int64_t high) {
  int64_t result = 0;
  const char* end = value.data() + value.size();
  const auto parsed = std::from_chars(value.data(), end, result);
  DEQ_CHECK(parsed.ec == std::errc() && parsed.ptr == end && result >= low && result <= high,
            "{} = '{}'; expected {} to {}", name, value, low, high);
  return result;
}

int64_t number(const char* name, int64_t otherwise, int64_t low, int64_t high) {
  const auto value = variable(name);
  return value ? number(name, *value, low, high) : otherwise;
}

}  // namespace

std::optional<Rendezvous> rendezvous_from_environment() {
  const auto size = variable("WORLD_SIZE");
  if (!size) return std::nullopt;
  Rendezvous meeting;
  meeting.size = number("WORLD_SIZE", *size, 1, 65536);
  if (meeting.size > 1) {
    meeting.rank = number("RANK", require("RANK", "0 to WORLD_SIZE - 1"), 0, meeting.size - 1);
    meeting.address = require("MASTER_ADDR", "the machine where processes meet");
    meeting.port = number("MASTER_PORT", require("MASTER_PORT", "the port there"), 1, 65535);
  }
  meeting.local_size = number("LOCAL_WORLD_SIZE", 1, 1, meeting.size);
  meeting.local_rank = number("LOCAL_RANK", 0, 0, meeting.size - 1);
  const std::string served = variable("TORCHELASTIC_USE_AGENT_STORE").value_or("False");
  meeting.served = served == "True" || served == "true" || served == "1";
  meeting.restarts = number("TORCHELASTIC_RESTART_COUNT", 0, 0, int64_t(1) << 30);
  return meeting;
}

}  // namespace deq
