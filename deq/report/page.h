// The report of one or more runs as one HTML page that needs nothing else: no network, no scripts.
#pragma once

#include <optional>

#include "deq/report/memory_picture.h"
#include "deq/report/passage.h"
#include "deq/report/run_record.h"

namespace deq {

/// How every page begins, so that nothing else is taken for one and replaced.
inline constexpr const char* kPageStart = "<!doctype html>\n<!-- deq report -->\n";

/// One run of a report's page.
struct ReportedRun {
  RunRecord record;
  int64_t parameters = 0;  ///< of the model; 0: not looked at
  std::optional<Passage> passage;
  MemoryPicture memory;    ///< along the first problem of the validation split
  std::string no_passage;  ///< why there is none; "": nobody asked
};

/// `runs` report one metric (check_comparable).
std::string report_page(const std::vector<ReportedRun>& runs);

}  // namespace deq
