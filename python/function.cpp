#include "python/function.h"

#include <torch/csrc/utils/pybind.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "deq/base/error.h"
#include "python/bindings.h"
#include "python/errors.h"

namespace deq::python {

using at::Tensor;

namespace {

std::atomic<int> calls{0};  // of the core, in all threads
std::atomic<bool> ending{false};

/// Raises SystemExit in a thread that goes on while the interpreter ends.
void check_end() {
  if (!ending) return;
  PyErr_SetString(PyExc_SystemExit, "the interpreter ends");
  throw py::error_already_set();
}

/// At the interpreter's end: no thread but this one shall be in the core. One evaluation of f that
/// takes longer than this is not waited for.
void end_calls() {
  ending = true;
  const py::gil_scoped_release released;
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(2);
  while (calls > 0 && std::chrono::steady_clock::now() < limit)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

/// Whether this thread has not looked for signals lately: a look waits for the GIL.
bool signals_are_due() {
  thread_local auto last = std::chrono::steady_clock::now();
  const auto now = std::chrono::steady_clock::now();
  if (now - last < std::chrono::milliseconds(200)) return false;
  last = now;
  return true;
}

/// The same f, which looks for signals between its evaluations.
Map interruptible(const Map& f) {
  const auto look = [] {
    if (signals_are_due()) check_signals();
  };
  Map same(
      [f, look](const Tensor& z) {
        look();
        return f(z);
      },
      [f, look]() -> Map::Series {
        return [series = f.series(), look](const Tensor& z, const std::vector<int64_t>& done) {
          look();
          return series(z, done);
        };
      });
  same.set_recordable(f.recordable());
  same.set_linearise([f](const Tensor& z) { return f.linearise(z); });
  same.set_reference([f](const Tensor& z) { return f.differentiable(z); });
  if (f.part()) same.set_part(f.part(), f.strictly_causal());
  if (f.resolvent()) same.set_resolvent(f.resolvent());
  return same;
}

}  // namespace

CoreCall::CoreCall() { ++calls; }
CoreCall::~CoreCall() { --calls; }

std::shared_ptr<PyObject> held(py::object object) {
  return {object.release().ptr(), [](PyObject* held) {
            if (!Py_IsInitialized()) return;
            const py::gil_scoped_acquire gil;
            Py_DECREF(held);
          }};
}

Map map_of(py::object f, std::shared_ptr<const State> state) {
  if (py::isinstance<Map>(f)) return interruptible(f.cast<const Map&>());
  DEQ_CHECK(PyCallable_Check(f.ptr()), "f is of type {}; expected a callable z -> f(z)",
            Py_TYPE(f.ptr())->tp_name);
  return Map([f = held(std::move(f)), state](const Tensor& z) {
    const py::gil_scoped_acquire gil;
    try {
      check_end();
      const py::object value = py::handle(f.get())(state->show(z));
      if (PyErr_CheckSignals() != 0) throw_python_error();
      return state->read(value);
    } catch (py::error_already_set& error) {
      throw_python_error(error);
    }
  });
}

void bind_functions(py::module_& module) {
  py::class_<Map>(module, "Map",
                  "f(., x) of a cell, with everything that does not depend on z computed once: a "
                  "callable z -> f(z).\nAs f of a solve it is evaluated without Python.")
      .def(
          "__call__", [](const Map& f, const Tensor& z) { return f(z); }, py::arg("z"),
          py::call_guard<CoreCall>());
  module.def("end_calls", &end_calls);
  module.def("forget_calls", [] { calls = 0; });  // in a forked child, which has one thread
}

}  // namespace deq::python
