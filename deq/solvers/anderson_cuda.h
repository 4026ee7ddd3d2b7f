// Anderson's solver on a GPU: the loop that solve() runs there, where deq is built with CUDA.
#pragma once

#include "deq/solvers/anderson.h"

namespace deq::cuda {

/// Whether iterate() knows these options and this state; else the loop of driver.h runs on
/// LibTorch's operators.
bool takes(const Anderson& options, const at::Tensor& z0);

/// As deq::iterate with options.start(layout). Judges residuals on the GPU and looks at the result
/// one step late, so that the GPU is never idle; a solve therefore evaluates f at most once more
/// than on the CPU. Where f can be recorded (Map::recordable) and this thread has a stream of its
/// own (use_device), its evaluations after the first are replays of one CUDA graph.
Solution iterate(const Map& f, const at::Tensor& z0, const Anderson& options, const StopRule& stop,
                 const Layout& layout);

}  // namespace deq::cuda
