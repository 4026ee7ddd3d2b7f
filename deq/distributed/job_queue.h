// Work that a thread of its own does in order, beside the one that hands it in.
#pragma once

#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>

namespace deq {

/// The thread starts with the first job. What a job throws ends all behind it.
class JobQueue {
 public:
  JobQueue() = default;
  ~JobQueue() { stop(); }
  JobQueue(const JobQueue&) = delete;
  JobQueue& operator=(const JobQueue&) = delete;

  void add(std::function<void()> job);
  /// Waits until all are done; throws what one threw.
  void finish();
  /// Waits for the job that is being done, and leaves the others.
  void stop();

 private:
  void work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  std::exception_ptr failure_;
  bool busy_ = false;
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace deq
