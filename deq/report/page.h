// The report of one or more runs as one HTML page that needs nothing else: no network, no scripts.
#pragma once

#include <optional>

#include "deq/report/passage.h"
#include "deq/report/run_record.h"

namespace deq {

struct ReportedRun {
  RunRecord record;
  std::optional<Passage> passage;
  std::string no_passage;  ///< why there is none; "": nobody asked
};

/// `runs` report one metric (check_comparable).
std::string report_page(const std::vector<ReportedRun>& runs);

}  // namespace deq
