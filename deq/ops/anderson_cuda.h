// One step of Anderson's solver on a GPU in three launches, none of which the host waits for:
// products, judgement, mixture. What they compute is what the loop of driver.cpp, small.h and
// rows.h compute on the CPU.
#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

namespace deq::cuda {

inline constexpr int kMaxMemory = 16;

/// A solve: R = samples * positions rows of `width` numbers, of which those of a sample depend on
/// each other in the order of positions, or against it. All pointers are to the GPU's memory.
template <class T>
struct Solve {
  int64_t rows = 0, samples = 0, positions = 1, width = 0;
  bool backward = false;  ///< a position depends on later ones
  bool causal = false;    ///< scope causal: Gram matrices are summed over what a row depends on
  int memory = 1, max_steps = 1, traced = 0;
  double ridge = 0, mixing = 1, decay = 1, rel_tol = 0, abs_tol = 0;
  double rounding = 0;  ///< share of |f(z)| by which evaluations may differ

  T *residuals, *images;                    ///< (memory, R, width), rings
  T* best;                                  ///< (R, width)
  double *merit, *residual, *last, *own;    ///< (R), as in solver_loop.h
  double *scale, *g_norm, *f_norm;          ///< (R)
  int* ages;                                ///< (R) newest iterates that a row may mix
  double* trace;                            ///< (traced, R), of the first steps
  double* partial;                          ///< (R, chunks, memory + 1)
  double *gram, *sums;                      ///< (R, memory, memory)
  double* coefficients;                     ///< (R, memory)
  int64_t* steps;                           ///< (R)
  unsigned char *active, *better, *reason;  ///< (R)
  int* open;                                ///< (max_steps + 1) rows not done after a step
};

/// Parts that a row is cut into, so that a few long rows keep a GPU busy.
int64_t chunks(int64_t width);

/// g = f(z) - z into the ring, with f(z) mixed in, and its products with what the ring holds.
template <class T>
void products(const Solve<T>& solve, const T* z, const T* fz, int step, cudaStream_t stream);
/// Residuals, reasons, which rows found a better iterate, the coefficients of those that go on.
template <class T>
void judge(const Solve<T>& solve, int step, cudaStream_t stream);
/// The best iterates, and unless it is the last step the next ones into `next` (may be z).
template <class T>
void mix(const Solve<T>& solve, const T* z, T* next, int step, cudaStream_t stream);

}  // namespace deq::cuda
