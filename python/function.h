// A callable of Python's as what the core solves.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "deq/base/map.h"
#include "python/state.h"

namespace deq::python {

/// A Python object that the core may hold, copy and let go without the GIL; let go after the
/// interpreter's end, it is left where it is.
std::shared_ptr<PyObject> held(pybind11::object object);

/// A call of the core: while it lives the GIL is released, and the interpreter waits with its end.
/// Threads that are still solving then would lose the GIL in the middle of C++, which ends the
/// process: instead their next call of f raises SystemExit.
class CoreCall {
 public:
  CoreCall();
  ~CoreCall();
  CoreCall(const CoreCall&) = delete;
  CoreCall& operator=(const CoreCall&) = delete;

 private:
  pybind11::gil_scoped_release released_;
};

/// f: a Map that a cell has bound as it is, but for a look for signals now and then; any other
/// callable as a Map over states like `state`,
/// that takes the GIL for its call. What f raises leaves the core as what it was; signals are
/// looked at after each call. Throws deq::Error for what cannot be called. Under the GIL.
Map map_of(pybind11::object f, std::shared_ptr<const State> state);

}  // namespace deq::python
