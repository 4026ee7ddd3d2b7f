// Notices at once that another process is gone, whatever this one is busy with.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <thread>
#include <vector>

namespace deq {

/// A place where others connect, before it is known who they are.
class Listener {
 public:
  /// On any free port of this address. Throws deq::Error where there is none.
  explicit Listener(const std::string& address);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  std::string place() const;  ///< "127.0.0.1 40123"
  /// The next that connects. Throws deq::Error after so many seconds.
  int accept(double timeout) const;

 private:
  int socket_ = -1;
};

/// One connection to each other process, over which nothing is said but farewell.
class PeerWatch {
 public:
  /// `places` are those of all processes' listeners, by rank; `mine` is this one's. `gone` hears of
  /// each process that went without farewell, on a thread of the watch. All call it at once. Throws
  /// deq::Error, naming the rank, for one that cannot be reached in time.
  PeerWatch(int64_t rank, const std::vector<std::string>& places, const Listener& mine,
            double timeout, std::function<void(int64_t rank)> gone);
  /// Says farewell where `leave` was called.
  ~PeerWatch();
  PeerWatch(const PeerWatch&) = delete;
  PeerWatch& operator=(const PeerWatch&) = delete;

  void leave();

 private:
  void watch();

  std::vector<int> sockets_;  // by rank; -1: this process, or one that has taken leave
  std::function<void(int64_t)> gone_;
  int wake_[2] = {-1, -1};
  std::thread thread_;
};

}  // namespace deq
