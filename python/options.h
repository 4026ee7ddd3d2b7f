// Options by their names: Python hands over texts, as flags and files do, and `fields()` reads
// them.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "deq/base/fields.h"

namespace deq::python {

/// assign_options for Python: what deq::Error says of an option has its name as Python spells it,
/// max_steps for max-steps.
template <class T>
void assign(T& options, const Assignments& values);

/// Calls `act`, and spells the names of `known` and `given` with underscores in the deq::Error that
/// it may throw.
void with_python_names(const std::vector<OptionInfo>& known, const Assignments& given,
                       const std::function<void()>& act);

template <class T>
void assign(T& options, const Assignments& values) {
  with_python_names(list_options(options), values, [&] { assign_options(options, values); });
}

}  // namespace deq::python
