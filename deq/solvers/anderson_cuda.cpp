#include "deq/solvers/anderson_cuda.h"

#include <ATen/ATen.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/cuda/CUDAEvent.h>
#include <c10/core/GradMode.h>
#include <c10/cuda/CUDAGuard.h>

#include <array>

#include "deq/ops/anderson_cuda.h"
#include "deq/ops/recording_cuda.h"
#include "deq/solvers/solver_loop.h"

namespace deq::cuda {
namespace {

using at::Tensor;

template <class T>
class Loop : SolverLoop {
 public:
  Loop(const Map& f, const Tensor& z0, const Anderson& options, const StopRule& stop,
       const Layout& layout)
      : SolverLoop(f, z0, stop, layout),
        recordable_(f.recordable() && can_record()),
        stream_(at::cuda::getCurrentCUDAStream()) {
    const int64_t R = layout.rows(), n = layout.width(), m = options.memory_for(layout);
    Solve<T>& s = solve_;
    s.rows = R;
    s.width = n;
    s.samples = layout.by_position() ? layout.batch : layout.rows();
    s.positions = layout.by_position() ? layout.positions : 1;
    s.backward = layout.order == Order::Backward;
    s.causal = layout.scope == Scope::Causal;
    s.memory = int(m);
    s.max_steps = int(stop.max_steps);
    s.ridge = options.ridge;
    s.mixing = options.mixing;
    s.decay = options.decay;
    s.rel_tol = stop.rel_tol;
    s.abs_tol = stop.abs_tol;
    s.rounding = round_off(z0.scalar_type());
    best_ = start_.clone();
    s.best = best_.data_ptr<T>();
    const auto on_gpu = best_.options();
    rings_ = at::empty({2, m, R, n}, on_gpu);
    s.residuals = rings_.data_ptr<T>();
    s.images = s.residuals + m * R * n;
    known_ = at::full({kKnown, R}, kInfinity, on_gpu.dtype(at::kDouble));
    double* known = known_.data_ptr<double>();
    for (double** place :
         {&s.merit, &s.residual, &s.last, &s.own, &s.scale, &s.g_norm, &s.f_norm}) {
      *place = known;
      known += R;
    }
    traced_ = std::min(stop.max_steps, int64_t(kTraceNumbers) / R);
    s.traced = int(traced_);
    trace_on_gpu_ = at::empty({traced_, R}, on_gpu.dtype(at::kDouble));
    s.trace = trace_on_gpu_.data_ptr<double>();
    products_ = at::empty({R * (chunks(n) * (m + 1) + 2 * m * m + m)}, on_gpu.dtype(at::kDouble));
    s.partial = products_.data_ptr<double>();
    s.gram = s.partial + R * chunks(n) * (m + 1);
    s.sums = s.gram + R * m * m;
    s.coefficients = s.sums + R * m * m;
    steps_on_gpu_ = at::full({R}, stop.max_steps, on_gpu.dtype(at::kLong));
    s.steps = steps_on_gpu_.data_ptr<int64_t>();
    flags_ = at::full({3, R}, 1, on_gpu.dtype(at::kByte));  // reason 1: MaxSteps
    s.active = flags_.data_ptr<uint8_t>();
    s.better = s.active + R;
    s.reason = s.better + R;
    ages_ = at::zeros({R}, on_gpu.dtype(at::kInt));
    s.ages = ages_.data_ptr<int>();
    open_on_gpu_ = at::zeros({stop.max_steps + 1}, on_gpu.dtype(at::kInt));
    s.open = open_on_gpu_.data_ptr<int>();
    open_ =
        at::empty({stop.max_steps + 1}, at::TensorOptions().dtype(at::kInt).pinned_memory(true));
  }

  Solution run() {
    Tensor z = start_;
    int step = 0;
    // The evaluation after the one that found all rows done judges them once more, together.
    while (step < solve_.max_steps && (step < 2 || is_open(step - 1) || is_open(step))) {
      ++step;
      Tensor fz = recordable_ && step >= 2 ? replayed(z) : call(z, none_);
      products(solve_, z.data_ptr<T>(), fz.data_ptr<T>(), step, stream_);
      judge(solve_, step, stream_);
      tell(step);
      // What is replayed reads one place, which z is then.
      Tensor next = recording_.recorded() ? z : at::empty_like(best_);
      mix(solve_, z.data_ptr<T>(), next.data_ptr<T>(), step, stream_);
      if (step < solve_.max_steps) z = std::move(next);
    }
    read_back(step);
    conclude(z);
    return finish();
  }

 private:
  static constexpr int64_t kKnown = 7;  // numbers of a row

  Tensor replayed(const Tensor& z) {
    if (!recording_.recorded()) return recording_.record([&] { return call(z, none_); });
    ++evaluations_;
    return recording_.replay();
  }

  /// Sends how many rows are open after a step to the host, and marks when it is there.
  void tell(int step) {
    open_.narrow(0, step, 1).copy_(open_on_gpu_.narrow(0, step, 1), /*non_blocking=*/true);
    told_[size_t(step % 2)].record(stream_);
  }
  bool is_open(int step) {
    told_[size_t(step % 2)].synchronize();
    return open_.data_ptr<int>()[step] > 0;
  }

  void read_back(int step) {
    const Tensor known = known_.cpu(), flags = flags_.cpu(), steps = steps_on_gpu_.cpu();
    const auto numbers = [&](int64_t which) {
      const double* from = known.data_ptr<double>() + which * int64_t(rows_);
      return Numbers(from, from + rows_);
    };
    merit_ = numbers(0);
    residual_ = numbers(1);
    last_ = numbers(2);
    own_ = numbers(3);
    const uint8_t* flag = flags.data_ptr<uint8_t>();
    active_.assign(flag, flag + rows_);
    reason_.assign(flag + 2 * rows_, flag + 3 * rows_);
    steps_.assign(steps.data_ptr<int64_t>(), steps.data_ptr<int64_t>() + rows_);
    for (size_t r = 0; r < rows_; ++r) {
      const bool given_up =
          reason_[r] == uint8_t(Reason::Diverged) || reason_[r] == uint8_t(Reason::NonFinite);
      judged_ = judged_ && !(given_up && steps_[r] == step && step > 1);
    }
    // The last evaluation may have come after all rows were done.
    const int64_t counted = all_done_before(step) ? step - 1 : step;
    const int64_t kept = std::min(counted, traced_);
    const Tensor trace = trace_on_gpu_.narrow(0, 0, kept).cpu();
    trace_.assign(trace.data_ptr<double>(), trace.data_ptr<double>() + trace.numel());
  }
  bool all_done_before(int step) const { return step > 1 && open_.data_ptr<int>()[step - 1] == 0; }

  int64_t traced_ = 0;  // steps
  bool recordable_;
  at::cuda::CUDAStream stream_;
  Solve<T> solve_;
  Tensor rings_, known_, trace_on_gpu_, products_, steps_on_gpu_, flags_, ages_, open_on_gpu_;
  Tensor open_;  // on the host, where the GPU writes by itself
  std::array<at::cuda::CUDAEvent, 2> told_;
  Recording recording_;
  std::vector<int64_t> none_ = std::vector<int64_t>(size_t(layout_.batch), 0);  // left out of f
};

}  // namespace

bool takes(const Anderson& options, const Tensor& z0) {
  return z0.is_cuda() && z0.numel() > 0 && options.memory <= kMaxMemory &&
         (z0.scalar_type() == at::kFloat || z0.scalar_type() == at::kDouble);
}

Solution iterate(const Map& f, const Tensor& z0, const Anderson& options, const StopRule& stop,
                 const Layout& layout) {
  validate(stop, "StopRule");
  c10::AutoGradMode no_tape(false);
  const c10::cuda::CUDAGuard device(z0.device());
  return z0.scalar_type() == at::kFloat ? Loop<float>(f, z0, options, stop, layout).run()
                                        : Loop<double>(f, z0, options, stop, layout).run();
}

}  // namespace deq::cuda
