// The CPU path of TrellisStep: the row kernels, and what they read.
#pragma once

#include <mutex>
#include <vector>

#include "deq/base/tensor_pool.h"
#include "deq/ops/trellis_step.h"
#include "deq/ops/unchanged.h"

namespace deq::ops {

/// The weight as the kernels read it; for backward made when that is first asked for.
class PackedTrellis {
 public:
  PackedTrellis(const at::Tensor& weight, int64_t kernel, WeightType type);

  const at::Tensor& forward() const { return forward_; }  ///< (4 K, .) W_k^T, gate by gate
  const at::Tensor& backward() const;                     ///< (K, .) W_k
  /// Throws deq::Error where the weight was changed in place since.
  void check_unchanged() const { unchanged_.check("trellis_step"); }

 private:
  at::Tensor weight_, forward_;
  Unchanged unchanged_;
  int64_t kernel_;
  mutable std::once_flag once_;
  mutable at::Tensor backward_;
};

/// What one evaluation leaves for its backward, or for the next one of a solve.
struct TrellisKept {
  at::Tensor z, f;   // (B, T, 2 H)
  at::Tensor h;      // (B, d (K - 1) + T, H) masked, past and zeros to come included
  at::Tensor gates;  // (B, T, 4 H) as in TrellisRows
  TensorPool pool;   // of a solve's f
};

/// f(z), z contiguous; with `taped` everything that backward reads.
TrellisKept trellis_forward_cpu(const TrellisContext& context, const at::Tensor& z, bool taped);

/// The next evaluation of a solve; as block_resume_cpu.
at::Tensor trellis_resume_cpu(const TrellisContext& context, const at::Tensor& z,
                              const std::vector<int64_t>& done, TrellisKept& kept);

/// What one product with the Jacobian's transpose leaves for the next one of a solve.
struct TrellisPassed {
  at::Tensor z;      // the gradient of z
  at::Tensor gates;  // (B, d A + T + d (K - 1 - A), 4 H) of the gates, zero around the positions
  at::Tensor c;      // (B, T, H) of the c before each position
  TensorPool pool;   // of z
};

/// As block_resume_backward_cpu.
at::Tensor trellis_resume_backward_cpu(const TrellisContext& context, const TrellisKept& kept,
                                       const at::Tensor& df, const std::vector<int64_t>& done,
                                       TrellisPassed& passed);

/// Gradients of z and, with `all`, of everything else that f depends on.
struct TrellisGiven {
  at::Tensor z, injected, weight;
};
TrellisGiven trellis_backward_cpu(const TrellisContext& context, const TrellisKept& kept,
                                  const at::Tensor& df, bool all);

}  // namespace deq::ops
