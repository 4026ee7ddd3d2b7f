// Cells f(z, x), made by their options, as what deq.cells wraps.
#include "deq/cells/cells.h"

#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include "python/bindings.h"
#include "python/function.h"
#include "python/modules.h"
#include "python/options.h"

namespace deq::python {
namespace {

using at::Tensor;

/// A cell and the options that it was made with.
struct OwnCell {
  std::shared_ptr<Cell> cell;
};

struct OneCell {
  CellOptions cell;
  static void fields(auto& self, auto&& field) { field("cell", self.cell, "f(z, x)"); }
};

OwnCell make(const Assignments& values, int64_t symbols) {
  OneCell options;
  assign(options, values);
  return {make_cell(options.cell, {.symbols = symbols})};
}

/// f(., x), behind past states and inputs (B, M, .), where there are any.
Map bind_to(const OwnCell& self, const Tensor& x, const c10::optional<Tensor>& past_z,
            const c10::optional<Tensor>& past_x) {
  History history;
  if (past_z) history.z = past_z->detach();
  if (past_x) history.x = past_x->detach();
  return self.cell->bind(x, history).f;
}

}  // namespace

py::list named_tensors_of(const torch::nn::Module& module) {
  py::list named;
  for (const auto& one : module.named_parameters())
    named.append(py::make_tuple(one.key(), one.value(), true));
  for (const auto& one : module.named_buffers())
    named.append(py::make_tuple(one.key(), one.value(), false));
  return named;
}

void bind_cells(py::module_& module) {
  py::class_<OwnCell>(module, "Cell")
      .def(py::init(&make), py::arg("options"), py::arg("symbols") = 0)
      .def("named_tensors", [](const OwnCell& self) { return named_tensors_of(*self.cell); })
      .def("train", [](const OwnCell& self, bool on) { self.cell->train(on); })
      .def("initialise", [](const OwnCell& self, double std) { self.cell->initialise(std); })
      .def("bind", &bind_to, py::arg("x"), py::arg("past_z") = py::none(),
           py::arg("past_x") = py::none(), py::call_guard<CoreCall>())
      .def(
          "output", [](const OwnCell& self, const Tensor& z) { return self.cell->output(z); },
          py::call_guard<CoreCall>())
      .def_property_readonly("causal", [](const OwnCell& self) { return self.cell->causal(); })
      .def_property_readonly("injects", [](const OwnCell& self) { return self.cell->injects(); })
      .def_property_readonly("input_width",
                             [](const OwnCell& self) { return self.cell->input_width(); })
      .def_property_readonly("state_width",
                             [](const OwnCell& self) { return self.cell->state_width(); })
      .def_property_readonly("output_width",
                             [](const OwnCell& self) { return self.cell->output_width(); });
}

}  // namespace deq::python
