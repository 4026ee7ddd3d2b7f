#include "python/errors.h"

#include <c10/util/Exception.h>
#include <torch/csrc/Exceptions.h>

#include "deq/base/error.h"
#include "python/bindings.h"

namespace deq::python {
namespace {

PyObject* error_type = nullptr;  // deq.Error, as long as the process lives

constexpr const char* kAbout =
    "What deq's core says of an argument, an option or an f: one line that names the thing, its\n"
    "value and what was expected. A RuntimeError and a ValueError.";

void translate(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (python_error& error) {
    error.restore();
  } catch (const deq::Error& error) {
    PyErr_SetString(error_type, error.what());
  } catch (const c10::Error& error) {
    PyErr_SetString(PyExc_RuntimeError, error.what_without_backtrace());
  }
}

}  // namespace

void throw_python_error() {
  python_error error;
  error.persist();
  throw error;  // NOLINT: a copy of it, which takes the GIL itself
}

void throw_python_error(py::error_already_set& error) {
  error.restore();
  throw_python_error();
}

void check_signals() {
  const py::gil_scoped_acquire gil;
  if (PyErr_CheckSignals() != 0) throw_python_error();
}

void bind_errors(py::module_& module) {
  const py::tuple bases =
      py::make_tuple(py::handle(PyExc_RuntimeError), py::handle(PyExc_ValueError));
  error_type = PyErr_NewExceptionWithDoc("deq.Error", kAbout, bases.ptr(), nullptr);
  if (!error_type) throw py::error_already_set();
  module.add_object("Error", py::handle(error_type));
  py::register_local_exception_translator(translate);
}

}  // namespace deq::python
