// The extension module deq._core.
#include "python/bindings.h"

PYBIND11_MODULE(_core, module) {
  using namespace deq::python;
  module.doc() = "The core of deq; its names are private to the package deq.";
  bind_errors(module);
  bind_options(module);
  bind_reports(module);
  bind_functions(module);
  bind_equilibria(module);
  bind_cells(module);
  bind_models(module);
  bind_files(module);
}
