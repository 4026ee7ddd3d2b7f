#include "deq/ops/anderson_cuda.h"

namespace deq::cuda {
namespace {

constexpr int kThreads = 128;         // of products and mix
constexpr int kJudges = 256;          // of a sample
constexpr int64_t kChunk = 2048;      // numbers of a row that one block takes
constexpr double kDivergence = 1e6;   // as in report.h
constexpr double kDependent = 1e-14;  // as in small.cpp
constexpr double kSmallestSquare = 1e-280;
enum : unsigned char { Converged, MaxSteps, Diverged, NonFinite };

__device__ double infinity() { return __longlong_as_double(0x7ff0000000000000ll); }
__device__ bool finite(double x) { return fabs(x) < infinity(); }
/// As share() of solver_loop.cpp.
__device__ double share(double part, double whole) {
  if (part == 0 && !isnan(whole)) return 0;
  const double found = part / whole;
  return isnan(found) ? infinity() : found;
}
__device__ double larger(double a, double b) { return b > a || isnan(b) ? b : a; }

__device__ double warp_sum(double x) {
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_down_sync(~0u, x, offset);
  return x;
}

/// Grid (R, chunks).
template <class T, int kHeld>
__global__ void __launch_bounds__(kThreads)
    products_kernel(Solve<T> s, const T* z, const T* fz, int held, int slot) {
  const int64_t row = blockIdx.x, R = s.rows, n = s.width;
  const int64_t begin = int64_t(blockIdx.y) * kChunk, end = min(n, begin + kChunk);
  double sums[kHeld + 1] = {};  // with each residual that is held; |f|^2
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const int64_t at = row * n + i;
    const T f = fz[at], here = z[at], g = f - here;
    s.residuals[slot * R * n + at] = g;
    s.images[slot * R * n + at] = s.mixing == 1.0 ? f : T(here + s.mixing * g);
    sums[kHeld] += double(f) * double(f);
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      if (k < held) sums[k] += double(g) * double(k == slot ? g : s.residuals[k * R * n + at]);
    }
  }
  __shared__ double shared[kThreads / 32][kHeld + 1];
#pragma unroll
  for (int k = 0; k <= kHeld; ++k) {
    const double sum = warp_sum(sums[k]);
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32][k] = sum;
  }
  __syncthreads();
  if (threadIdx.x > kHeld) return;
  const int k = threadIdx.x;
  double sum = 0;
  for (int warp = 0; warp < kThreads / 32; ++warp) sum += shared[warp][k];
  // Of more sums than there are slots, those without one must not meet |f|^2 in the last place.
  if (k >= s.memory && k < kHeld) return;
  const int place = k == kHeld ? s.memory : k;
  s.partial[(row * gridDim.y + blockIdx.y) * (s.memory + 1) + place] = sum;
}

/// The largest of `value` over this thread and those before it, and of `carry`, which becomes the
/// largest of all. For all threads of the block.
__device__ double running_max(double value, double& carry, double* shared) {
  const int i = threadIdx.x;
  shared[i] = value;
  __syncthreads();
  for (int offset = 1; offset < kJudges; offset *= 2) {
    const double before = i >= offset ? shared[i - offset] : 0;
    __syncthreads();
    if (i >= offset) shared[i] = larger(before, shared[i]);
    __syncthreads();
  }
  const double found = larger(carry, shared[i]);
  carry = larger(carry, shared[kJudges - 1]);
  __syncthreads();
  return found;
}

/// As mixture() of small.cpp.
__device__ bool mixture(const double* H, int M, int m, double ridge, int newest, int age,
                        double* a) {
  const double latest = (1 + ridge) * H[newest * M + newest];
  if (!(latest > kSmallestSquare) || !finite(latest)) return false;
  const auto reduced = [&](int i, int j) {
    const double cij = H[i * M + j] * (i == j ? 1 + ridge : 1.0);
    return cij - H[i * M + newest] - H[j * M + newest] + latest;
  };
  double L[kMaxMemory * (kMaxMemory + 1) / 2], y[kMaxMemory];  // rows below each other
  int kept[kMaxMemory], rows = 0;
  for (int back = 1; back < min(m, age); ++back) {
    const int i = (newest + m - back) % m;
    double* own = L + rows * (rows + 1) / 2;
    double pivot = reduced(i, i);
    y[rows] = latest - H[i * M + newest];
    for (int k = 0; k < rows; ++k) {
      const double* other = L + k * (k + 1) / 2;
      double sum = reduced(i, kept[k]);
      for (int l = 0; l < k; ++l) sum -= own[l] * other[l];
      own[k] = sum / other[k];
      pivot -= own[k] * own[k];
      y[rows] -= own[k] * y[k];
    }
    if (!(pivot > kDependent * (H[i * M + i] + latest)) || !(H[i * M + i] > 0)) continue;
    own[rows] = sqrt(pivot);
    y[rows] /= own[rows];
    kept[rows++] = i;
  }
  for (int i = 0; i < m; ++i) a[i] = 0;
  double rest = 1;
  for (int row = rows - 1; row >= 0; --row) {
    for (int k = row + 1; k < rows; ++k) y[row] -= L[k * (k + 1) / 2 + row] * y[k];
    y[row] /= L[row * (row + 1) / 2 + row];
    a[kept[row]] = y[row];
    rest -= y[row];
  }
  a[newest] = rest;
  return finite(rest);
}

/// A block for each sample.
template <class T>
__global__ void __launch_bounds__(kJudges)
    judge_kernel(Solve<T> s, int step, int held, int slot, int64_t parts) {
  __shared__ double shared[kJudges];
  __shared__ int open;
  const int m = s.memory;
  const int64_t positions = s.positions, base = blockIdx.x * positions;
  const auto row_of = [&](int64_t k) { return base + (s.backward ? positions - 1 - k : k); };
  if (threadIdx.x == 0) open = 0;

  for (int64_t item = threadIdx.x; item < positions * (held + 1); item += kJudges) {
    const int64_t row = base + item / (held + 1);
    const int k = int(item % (held + 1));
    const double* from = s.partial + row * parts * (m + 1) + (k == held ? m : k);
    double sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += from[part * (m + 1)];
    if (k == held) {
      s.f_norm[row] = sqrt(sum);
    } else {
      s.gram[(row * m + slot) * m + k] = s.gram[(row * m + k) * m + slot] = sum;
      if (k == slot) s.g_norm[row] = sqrt(sum);
    }
  }
  __syncthreads();

  const int64_t padded = (positions + kJudges - 1) / kJudges * kJudges;
  double carry = 0;
  if (step == 1) {
    for (int64_t k = threadIdx.x; k < padded; k += kJudges) {
      double first = sqrt(double(s.width));
      if (k < positions) {
        const int64_t row = row_of(k);
        if (finite(s.g_norm[row]) && finite(s.f_norm[row]))
          first = fmax(first, fmax(s.g_norm[row], s.f_norm[row]));
      }
      first = running_max(first, carry, shared);
      if (k < positions) s.scale[row_of(k)] = first;
    }
  }
  // Takes up again what had converged and is above its tolerance now, and what depends on it; at
  // the end, when all rows were done before this evaluation, without allowing for rounding.
  const bool at_the_end = step == s.max_steps || (step > 1 && s.open[step - 1] == 0);
  double carry_above = 0;
  carry = 0;
  for (int64_t k = threadIdx.x; k < padded; k += kJudges) {
    const int64_t row = k < positions ? row_of(k) : base;
    const bool converged = k < positions && !s.active[row] && s.reason[row] == Converged;
    double above = 0;
    if (k < positions && (s.active[row] || converged)) {
      const double g = s.g_norm[row], f = s.f_norm[row], limit = fmax(s.rel_tol * f, s.abs_tol);
      const double allowed = at_the_end || !(limit > 0) ? 1 : 1 + s.rounding * f / limit;
      s.own[row] = finite(g) && finite(f) ? share(g, limit) : infinity();
      above = converged && s.own[row] > allowed;
    }
    above = running_max(above, carry_above, shared);
    const double merit = running_max(k < positions ? s.own[row] : 0, carry, shared);
    if (!converged || above == 0) continue;
    s.reason[row] = MaxSteps;
    s.steps[row] = s.max_steps;
    s.active[row] = 1;
    s.merit[row] = merit;
    s.ages[row] = 0;
  }
  // What failed, and with it what depends on it and could never converge: first the rows that are
  // not finite, then those that diverged.
  for (const unsigned char why : {NonFinite, Diverged}) {
    carry = 0;
    for (int64_t k = threadIdx.x; k < padded; k += kJudges) {
      double failed = 0;
      const int64_t row = k < positions ? row_of(k) : base;
      if (k < positions && s.active[row]) {
        const double g = s.g_norm[row], f = s.f_norm[row];
        failed = why == NonFinite ? !finite(g) || !finite(f) : g > kDivergence * s.scale[row];
        if (failed > 0) s.own[row] = infinity();
      }
      failed = running_max(failed, carry, shared);
      if (k < positions && s.active[row] && failed > 0) {
        s.reason[row] = why;
        s.steps[row] = step;
        s.active[row] = 0;
      }
    }
  }
  carry = 0;
  for (int64_t k = threadIdx.x; k < padded; k += kJudges) {
    const int64_t row = k < positions ? row_of(k) : base;
    const double merit = running_max(k < positions ? s.own[row] : 0, carry, shared);
    if (k >= positions) continue;
    const double residual = share(s.g_norm[row], s.f_norm[row]);
    const bool better = s.active[row] && (step == 1 || merit < s.merit[row]);
    if (better) {
      s.merit[row] = merit;
      s.residual[row] = residual;
    }
    if (s.active[row] && merit <= 1) {
      s.reason[row] = Converged;
      s.steps[row] = step;
      s.active[row] = 0;
    }
    s.better[row] = better;
    s.last[row] = residual;
    if (step <= s.traced) s.trace[(step - 1) * s.rows + row] = residual;
    if (s.active[row]) atomicAdd(&open, 1);
  }
  __syncthreads();
  if (open == 0) return;
  if (threadIdx.x == 0) atomicAdd(s.open + step, open);
  if (step == s.max_steps) return;

  if (s.causal) {
    for (int pair = threadIdx.x; pair < held * held; pair += kJudges) {
      const int at = pair / held * m + pair % held;
      double sum = 0;
#pragma unroll 8
      for (int64_t k = 0; k < positions; ++k) {
        sum = s.decay * sum + s.gram[row_of(k) * m * m + at];
        s.sums[row_of(k) * m * m + at] = sum;
      }
    }
    __syncthreads();
  }
  for (int64_t k = threadIdx.x; k < positions; k += kJudges) {
    const int64_t row = base + k;
    if (!s.active[row]) continue;
    double a[kMaxMemory];
    const double* sums = (s.causal ? s.sums : s.gram) + row * m * m;
    const int age = s.ages[row] = min(s.ages[row] + 1, held);
    const bool found = age > 1 && mixture(sums, m, held, s.ridge, slot, age, a);
    for (int i = 0; i < held; ++i) s.coefficients[row * m + i] = found ? a[i] : double(i == slot);
  }
}

/// Grid (R, chunks).
template <class T>
__global__ void __launch_bounds__(kThreads)
    mix_kernel(Solve<T> s, const T* z, T* next, int held, bool last) {
  const int64_t row = blockIdx.x, R = s.rows, n = s.width;
  const int64_t begin = int64_t(blockIdx.y) * kChunk, end = min(n, begin + kChunk);
  const bool active = s.active[row], better = s.better[row];
  __shared__ double a[kMaxMemory];
  if (active && threadIdx.x < held) a[threadIdx.x] = s.coefficients[row * s.memory + threadIdx.x];
  __syncthreads();
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const int64_t at = row * n + i;
    T stays = 0;
    if (better) s.best[at] = stays = z[at];
    if (last) continue;
    if (!active) {
      next[at] = better ? stays : s.best[at];
      continue;
    }
    double sum = 0;
    for (int k = 0; k < held; ++k) sum += a[k] * double(s.images[k * R * n + at]);
    next[at] = T(sum);
  }
}

}  // namespace

int64_t chunks(int64_t width) { return (width + kChunk - 1) / kChunk; }

template <class T>
void products(const Solve<T>& s, const T* z, const T* fz, int step, cudaStream_t stream) {
  const int held = min(step, s.memory), slot = (step - 1) % s.memory;
  const dim3 grid{unsigned(s.rows), unsigned(chunks(s.width))};
  if (held <= 4) {
    products_kernel<T, 4><<<grid, kThreads, 0, stream>>>(s, z, fz, held, slot);
  } else if (held <= 8) {
    products_kernel<T, 8><<<grid, kThreads, 0, stream>>>(s, z, fz, held, slot);
  } else {
    products_kernel<T, kMaxMemory><<<grid, kThreads, 0, stream>>>(s, z, fz, held, slot);
  }
}

template <class T>
void judge(const Solve<T>& s, int step, cudaStream_t stream) {
  const int held = min(step, s.memory), slot = (step - 1) % s.memory;
  judge_kernel<T>
      <<<unsigned(s.samples), kJudges, 0, stream>>>(s, step, held, slot, chunks(s.width));
}

template <class T>
void mix(const Solve<T>& s, const T* z, T* next, int step, cudaStream_t stream) {
  const dim3 grid{unsigned(s.rows), unsigned(chunks(s.width))};
  mix_kernel<T>
      <<<grid, kThreads, 0, stream>>>(s, z, next, min(step, s.memory), step == s.max_steps);
}

template void products<float>(const Solve<float>&, const float*, const float*, int, cudaStream_t);
template void products<double>(const Solve<double>&, const double*, const double*, int,
                               cudaStream_t);
template void judge<float>(const Solve<float>&, int, cudaStream_t);
template void judge<double>(const Solve<double>&, int, cudaStream_t);
template void mix<float>(const Solve<float>&, const float*, float*, int, cudaStream_t);
template void mix<double>(const Solve<double>&, const double*, double*, int, cudaStream_t);

}  // namespace deq::cuda
