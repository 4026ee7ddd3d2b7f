#include "python/state.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include "deq/base/autocast.h"
#include "deq/base/error.h"

namespace deq::python {
namespace {

using at::Tensor;
namespace py = pybind11;

std::string type_of(py::handle object) { return Py_TYPE(object.ptr())->tp_name; }

std::string place(const char* what, bool single, size_t index) {
  return single ? what : fmt::format("{}[{}]", what, index);
}

}  // namespace

Tensor tensor_of(py::handle object, const char* what) {
  DEQ_CHECK(THPVariable_Check(object.ptr()), "{} is of type {}; expected a tensor", what,
            type_of(object));
  return THPVariable_Unpack(object.ptr());
}

State::State(py::handle state, int64_t shared, const char* what) {
  single_ = THPVariable_Check(state.ptr());
  if (single_) {
    whole_ = THPVariable_Unpack(state.ptr());
    parts_.push_back({whole_.sizes().vec(), 0});
    return;
  }
  list_ = py::isinstance<py::list>(state);
  DEQ_CHECK(list_ || py::isinstance<py::tuple>(state),
            "{} is of type {}; expected a tensor, or a tuple or list of tensors", what,
            type_of(state));
  std::vector<Tensor> flattened;
  for (const py::handle item : state) {
    const std::string name = place(what, false, flattened.size());
    const Tensor part = tensor_of(item, name.c_str());
    DEQ_CHECK(part.dim() >= shared, "{} has shape [{}]; expected {} dimensions that all have{}",
              name, fmt::join(part.sizes(), ", "), shared,
              shared == 1 ? ", samples (or scope 'whole')" : "");
    const auto leading = part.sizes().slice(0, size_t(shared));
    if (flattened.empty()) shared_ = leading.vec();
    DEQ_CHECK(
        leading == at::IntArrayRef(shared_),
        "{} has shape [{}]; expected one that begins with [{}], as {}[0] (or scope 'whole', of the "
        "solver and of the gradient's)",
        name, fmt::join(part.sizes(), ", "), fmt::join(shared_, ", "), what);
    if (!flattened.empty())
      DEQ_CHECK(part.scalar_type() == flattened[0].scalar_type() &&
                    part.device() == flattened[0].device(),
                "{} is of {} on {}; expected {} on {}, as {}[0]", name,
                c10::toString(part.scalar_type()), part.device().str(),
                c10::toString(flattened[0].scalar_type()), flattened[0].device().str(), what);
    int64_t width = 1;
    for (const int64_t size : part.sizes().slice(size_t(shared))) width *= size;
    parts_.push_back({part.sizes().vec(), width});
    flattened.push_back(flat(part, width));
  }
  DEQ_CHECK(!flattened.empty(), "{} is empty; expected at least one tensor", what);
  whole_ = at::cat(flattened, shared);
}

Tensor State::flat(const Tensor& part, int64_t width) const {
  std::vector<int64_t> sizes = shared_;
  sizes.push_back(width);
  return part.reshape(sizes);
}

py::object State::show(const Tensor& whole) const {
  if (single_) return py::cast(whole);
  const auto dimension = int64_t(shared_.size());
  py::list shown;
  int64_t first = 0;
  for (const Part& part : parts_) {
    shown.append(whole.narrow(dimension, first, part.width).contiguous().view(part.sizes));
    first += part.width;
  }
  return list_ ? py::object(std::move(shown)) : py::object(py::tuple(shown));
}

void State::check(const Tensor& value, const Part& part, size_t index) const {
  const auto name = [&] { return place("f's value", single_, index); };
  DEQ_CHECK(value.sizes() == at::IntArrayRef(part.sizes), "{} has shape [{}]; expected [{}]",
            name(), fmt::join(value.sizes(), ", "), fmt::join(part.sizes, ", "));
  DEQ_CHECK(value.device() == whole_.device(), "{} is on {}; expected {}", name(),
            value.device().str(), whole_.device().str());
  DEQ_CHECK(value.scalar_type() == whole_.scalar_type() ||
                (value.is_floating_point() && autocast_enabled(whole_.device().type())),
            "{} is of {}; expected {}", name(), c10::toString(value.scalar_type()),
            c10::toString(whole_.scalar_type()));
}

Tensor State::read(py::handle value) const {
  if (single_) {
    const Tensor tensor = tensor_of(value, "f's value");
    check(tensor, parts_[0], 0);
    return tensor;
  }
  DEQ_CHECK(py::isinstance<py::tuple>(value) || py::isinstance<py::list>(value),
            "f's value is of type {}; expected a tuple or list of {} tensors", type_of(value),
            parts_.size());
  const auto items = py::reinterpret_borrow<py::sequence>(value);
  DEQ_CHECK(items.size() == parts_.size(), "f's value has {} tensors; expected {}", items.size(),
            parts_.size());
  std::vector<Tensor> flattened;
  for (size_t i = 0; i < parts_.size(); ++i) {
    const py::object item = items[i];
    const Tensor tensor = tensor_of(item, place("f's value", false, i).c_str());
    check(tensor, parts_[i], i);
    flattened.push_back(flat(tensor, parts_[i].width));
  }
  return at::cat(flattened, int64_t(shared_.size()));
}

}  // namespace deq::python
