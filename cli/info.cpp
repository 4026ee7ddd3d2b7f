// deq info: what this build will run on.
#include <fmt/format.h>
#include "cli/commands.h"
namespace deq::cli {
int info(int, char**) {
  fmt::print("deq {}\n", DEQ_VERSION);
  return 0;
}
}
