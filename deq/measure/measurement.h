#pragma once

#include <functional>
#include <string>
#include <vector>

#include "deq/report/chart.h"
#include "deq/solvers/solvers.h"

namespace deq {

struct TrainedModel;

/// What a measurement found: a table for a document, and the same numbers as charts.
struct Measurement {
  std::vector<std::string> columns;
  std::vector<std::vector<std::string>> rows;  ///< as many cells each
  std::vector<Chart> charts;
};

/// A solver and what a table calls it.
struct NamedSolver {
  std::string name;
  Solver solver;
};

/// The table in Markdown. Throws deq::Error for a row of more or fewer cells than columns.
std::string markdown(const Measurement& found);

/// Throws deq::Error for an explicit network, and for a cell that meets a condition of its own:
/// neither takes another solver or gradient.
void check_iterates(const TrainedModel& run);

/// What one call of `work` takes.
double seconds_of(const std::function<void()>& work);

}  // namespace deq
