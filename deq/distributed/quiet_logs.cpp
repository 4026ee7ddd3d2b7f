#include "deq/distributed/quiet_logs.h"

#include <c10/macros/cmake_macros.h>
#include <c10/util/Logging.h>
#include <dlfcn.h>

namespace deq {
namespace {

constexpr int kFatal = 3;

/// The lowest level that is logged. Where LibTorch logs through glog it is glog's, whose library
/// need not be named in our link for that.
int* lowest_level() {
#ifdef C10_USE_GLOG
  return static_cast<int*>(dlsym(RTLD_DEFAULT, "_ZN3fLI17FLAGS_minloglevelE"));
#else
  return &FLAGS_caffe2_log_level;
#endif
}

}  // namespace

QuietLogs::QuietLogs() {
  if (int* level = lowest_level()) {
    before_ = *level;
    *level = kFatal;
  }
}

QuietLogs::~QuietLogs() {
  if (int* level = lowest_level()) *level = before_;
}

}  // namespace deq
