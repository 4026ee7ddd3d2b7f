#pragma once

#include "deq/measure/sweep.h"

namespace deq {

/// How every page of a sweep begins, so that nothing else is taken for one and replaced.
inline constexpr const char* kSweepPageStart = "<!doctype html>\n<!-- deq sweep -->\n";

/// A sweep as one HTML page that needs nothing else: no network. Charts of all runs, each a thin
/// line, with their mean; tables; problems of the first run as pictures.
std::string sweep_page(const std::vector<SweptRun>& runs, const std::string& task);

}  // namespace deq
