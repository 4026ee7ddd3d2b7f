// Groups of several processes, which are threads here: each has its own connections.
#pragma once

#include <gtest/gtest.h>

#include <exception>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "deq/distributed/rendezvous.h"
#include "deq/distributed/store_server.h"

namespace deq::testing {

/// What each of `count` members threw, by rank; "" where it did not.
inline std::vector<std::string> errors_of_group(int64_t count,
                                                const std::function<void(ProcessGroup&)>& part,
                                                double timeout = 60) {
  const StoreServer server;
  std::vector<std::string> errors{size_t(count)};
  std::vector<std::thread> members;
  for (int64_t rank = 0; rank < count; ++rank) {
    members.emplace_back([&, rank] {
      try {
        const auto group = join({.port = server.port(),
                                 .rank = rank,
                                 .size = count,
                                 .local_rank = rank,
                                 .local_size = count,
                                 .served = true},
                                timeout, {});
        part(*group);
        leave(*group);
      } catch (const std::exception& error) {
        errors[size_t(rank)] = error.what();
      }
    });
  }
  for (std::thread& member : members) member.join();
  return errors;
}

/// All do their part without an error.
inline void in_a_group(int64_t count, const std::function<void(ProcessGroup&)>& part) {
  const std::vector<std::string> errors = errors_of_group(count, part);
  for (size_t rank = 0; rank < errors.size(); ++rank) EXPECT_EQ(errors[rank], "") << rank;
}

}  // namespace deq::testing
