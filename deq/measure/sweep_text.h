// A sweep as data, and as a document.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "deq/measure/sweep.h"

namespace deq {

/// How the files of a sweep begin, so that nothing else is taken for one and replaced.
inline constexpr const char* kSweepJsonStart = "{\n \"deq\": \"sweep\"";
inline constexpr const char* kSweepTextStart = "<!-- deq sweep -->\n";

/// Everything but the pictures; null for what is not known or not finite. docs/choosing.md names
/// the fields. Its text, indented by one, begins as kSweepJsonStart.
nlohmann::ordered_json json_of(const std::vector<SweptRun>& runs, const std::string& task);

/// Tables in Markdown: every limit of every set and run; starts; paths; what converged and is
/// wrong.
std::string sweep_tables(const std::vector<SweptRun>& runs);

/// A heading and its table, as sweep_tables has them.
struct SweepTable {
  std::string title, note;
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;
};
std::vector<SweepTable> tables_of(const std::vector<SweptRun>& runs);

}  // namespace deq
