// What c10d logs is not for a command's user: what went wrong is thrown as well.
#pragma once

namespace deq {

/// For its scope LibTorch logs nothing that it goes on after, of all threads.
class QuietLogs {
 public:
  QuietLogs();
  ~QuietLogs();
  QuietLogs(const QuietLogs&) = delete;
  QuietLogs& operator=(const QuietLogs&) = delete;

 private:
  int before_ = 0;
};

}  // namespace deq
