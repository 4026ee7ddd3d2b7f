// Exceptions on their way between Python, the core and LibTorch's engine.
#pragma once

#include <pybind11/pybind11.h>

#include <exception>

namespace deq::python {

/// The Python error that is set, as the exception that LibTorch's engine hands from thread to
/// thread, and into Python again as it was. Under the GIL.
[[noreturn]] void throw_python_error();

/// The same of one that pybind11 has caught.
[[noreturn]] void throw_python_error(pybind11::error_already_set& error);

/// Runs Python's signal handlers, as its interpreter does between two instructions, and throws what
/// they raise: KeyboardInterrupt after Ctrl-C. Of the main thread; nothing in others. Takes the
/// GIL.
void check_signals();

}  // namespace deq::python
