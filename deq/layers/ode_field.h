// f as the integrators call it: states as rows of n numbers, evaluations counted, tapes that end
// where f's captured tensors begin.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

#include "deq/base/autocast.h"
#include "deq/gradients/captured.h"
#include "deq/layers/ode.h"

namespace deq::ode {

/// Any y' = f: t (b), y (b, n), rows (b) -> (b, n).
class Field {
 public:
  /// `shape` of one sample; what f gives is checked against it.
  Field(OdeFunction f, at::IntArrayRef shape, at::ScalarType type);

  at::Tensor operator()(const at::Tensor& t, const at::Tensor& y, const at::Tensor& rows) const;
  /// df/dy (b, n, n) and df/dt (b, n), which may be undefined; `taped`: to be differentiated.
  OdeFunction::Jacobian jacobian(const at::Tensor& t, const at::Tensor& y, const at::Tensor& rows,
                                 bool taped = false) const;
  int64_t evaluations() const { return *evaluations_; }
  int64_t numbers() const { return n_; }

 private:
  OdeFunction f_;
  std::vector<int64_t> shape_;
  at::ScalarType type_;
  int64_t n_ = 1;
  std::shared_ptr<int64_t> evaluations_ = std::make_shared<int64_t>(0);
};

/// Evaluations in backward, each with a tape of its own, and the sums of gradients of what f
/// captured.
class TapedField {
 public:
  TapedField(const Field& field, const std::vector<torch::autograd::Edge>& captured,
             const AutocastState& autocast, const char* mode);

  struct Evaluation {
    at::Tensor y;                    ///< the leaf
    std::vector<at::Tensor> values;  ///< with the tape
  };
  Evaluation operator()(const at::Tensor& t, const at::Tensor& y, const at::Tensor& rows) const;
  /// Any function of the leaf that calls the field, all of it on one tape.
  Evaluation record(const at::Tensor& y,
                    const std::function<std::vector<at::Tensor>(const at::Tensor& y)>& what) const;
  /// sum_i (d values_i / d y)^T u_i, (b, n); adds to the sums, where they are asked for. Frees the
  /// tape.
  at::Tensor pull(const Evaluation& at, const std::vector<at::Tensor>& u, bool sums = true);
  /// Makes every sum NaN: what was to be added is not known.
  void spoil();

  const Field& field() const { return field_; }
  /// One for each captured edge; undefined where there is none.
  std::vector<at::Tensor> take_sums() { return std::move(sums_); }

 private:
  Field field_;
  Terminals terminals_;
  AutocastState autocast_;
  const char* mode_;
  std::vector<at::Tensor> sums_;
  std::vector<bool> own_;  // sums whose memory is ours
};

}  // namespace deq::ode
