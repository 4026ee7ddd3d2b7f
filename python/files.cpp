// Tensors in safetensors files, by the core's own reader and writer.
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include "deq/files/safetensors.h"
#include "python/bindings.h"
#include "python/function.h"

namespace deq::python {
namespace {

using Named = std::map<std::string, at::Tensor>;
using Metadata = std::map<std::string, std::string>;

void save(const std::string& path, const Named& tensors, const Metadata& metadata) {
  const CoreCall call;
  save_tensors(path, tensors, metadata);
}

std::pair<Named, Metadata> load(const std::string& path) {
  const CoreCall call;
  TensorFile file = load_tensors(path);
  require_all_read(file, path);
  return {std::move(file.tensors), std::move(file.metadata)};
}

}  // namespace

void bind_files(py::module_& module) {
  module.def("save_tensors", &save);
  module.def("load_tensors", &load);
}

}  // namespace deq::python
