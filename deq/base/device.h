// Where tensors live: the CPU, or a GPU that LibTorch knows.
#pragma once

#include <c10/core/Device.h>

#include <string>

namespace deq {

/// The device of a name: "cpu", "cuda" (the first) or "cuda:N". Throws deq::Error for another name,
/// and for a GPU that is not there.
c10::Device device_of(const std::string& name);

/// The same, made this thread's: on a GPU its work goes to a stream of its own, where LibTorch's
/// default one could not be recorded (see Map::set_recordable).
c10::Device use_device(const std::string& name);

/// Waits until the device has done what it was given; a GPU works on after calls have returned.
void synchronize(c10::Device device);

}  // namespace deq
