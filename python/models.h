// A trained model's class, which two files bind.
#pragma once

#include <pybind11/pybind11.h>

#include "deq/runs/run.h"

namespace deq::python {

/// Adds `generate`.
void bind_generation(pybind11::class_<TrainedModel>& type);

}  // namespace deq::python
