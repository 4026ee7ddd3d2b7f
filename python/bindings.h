// What `import deq` is made of: each part of the extension module stands in its own file. Python's
// half, in python/deq, gives it its names, defaults and documentation.
//
// Everything of the core runs without the GIL; f takes it for each of its calls (function.h).
#pragma once

#include <pybind11/pybind11.h>

namespace deq::python {

namespace py = pybind11;

void bind_errors(py::module_& module);
void bind_options(py::module_& module);
void bind_reports(py::module_& module);
void bind_functions(py::module_& module);
void bind_equilibria(py::module_& module);
void bind_cells(py::module_& module);
void bind_models(py::module_& module);
void bind_files(py::module_& module);

}  // namespace deq::python
