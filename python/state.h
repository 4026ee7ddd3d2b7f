// One tensor, or several side by side as one: what Python calls a state.
#pragma once

#include <ATen/core/Tensor.h>
#include <pybind11/pybind11.h>

#include <vector>

namespace deq::python {

/// The tensor that a Python object is. Throws deq::Error, "WHAT is a list; expected a tensor", for
/// anything else.
at::Tensor tensor_of(pybind11::handle object, const char* what);

/// How a state looks from Python: a tensor, or a tuple or list of tensors of one type and device.
/// The core sees one tensor, in which the parts of a sample (a position, where the first two
/// dimensions are shared) stand side by side. Under the GIL.
class State {
 public:
  /// `shared`: how many leading dimensions all parts have in common; 0: none need to. `what` names
  /// the object in errors.
  State(pybind11::handle state, int64_t shared, const char* what);

  /// The state as one tensor, with its tape.
  const at::Tensor& whole() const { return whole_; }
  /// Any tensor of whole()'s shape as what the state looks like.
  pybind11::object show(const at::Tensor& whole) const;
  /// What f returned, as one tensor. Throws deq::Error unless it has this state's form, shapes,
  /// device and, but for autocast, type.
  at::Tensor read(pybind11::handle value) const;

 private:
  /// What there is to say of a part.
  struct Part {
    std::vector<int64_t> sizes;
    int64_t width = 0;  ///< of it in whole(), along the dimension in which parts are joined
  };
  void check(const at::Tensor& value, const Part& part, size_t index) const;
  at::Tensor flat(const at::Tensor& part, int64_t width) const;

  std::vector<Part> parts_;
  bool single_ = false;  // a tensor, not one of several
  bool list_ = false;
  std::vector<int64_t> shared_;  // sizes of the dimensions in common
  at::Tensor whole_;
};

}  // namespace deq::python
