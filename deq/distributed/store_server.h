// Where processes of one machine meet, served by whoever starts them.
#pragma once

#include <cstdint>
#include <memory>

namespace deq {

/// Serves on a free port of 127.0.0.1 until it ends. Throws deq::Error where it cannot, and in a
/// build without c10d.
class StoreServer {
 public:
  StoreServer();
  ~StoreServer();
  int64_t port() const;

 private:
  struct Work;
  std::unique_ptr<Work> work_;
};

}  // namespace deq
