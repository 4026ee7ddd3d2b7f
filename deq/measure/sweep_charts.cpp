#include "deq/measure/sweep_charts.h"

#include <fmt/format.h>

#include <cmath>
#include <map>
#include <set>

namespace deq {
namespace {

using Points = std::vector<std::pair<double, double>>;
using OfLimit = std::function<double(const SweptLimit&)>;

std::vector<const SweptRun*> solved_runs(const std::vector<SweptRun>& runs) {
  std::vector<const SweptRun*> found;
  for (const SweptRun& run : runs) {
    if (run.depth == 0) found.push_back(&run);
  }
  return found;
}

/// Point for point over lines as long as the first one.
Points mean_of(const std::vector<Points>& lines) {
  Points mean(lines.front().size(), {0, 0});
  for (const Points& line : lines) {
    if (line.size() != mean.size()) return {};  // other limits
    for (size_t i = 0; i < line.size(); ++i) {
      mean[i].first += line[i].first / double(lines.size());
      mean[i].second += line[i].second / double(lines.size());
    }
  }
  return mean;
}

/// One run is its own mean.
void add_lines(Chart& chart, const std::string& name, const std::vector<Points>& lines) {
  if (lines.empty()) return;
  std::set<size_t> colours;
  for (const Series& one : chart.series) colours.insert(*one.colour);
  const size_t colour = colours.size();
  for (size_t i = 0; i < lines.size() && lines.size() > 1; ++i)
    chart.series.push_back({name, lines[i], colour, Stroke::Thin});
  const Points mean = mean_of(lines);
  if (!mean.empty()) chart.series.push_back({name, mean, colour, Stroke::Thick});
}

std::string set_name(const SweptSet& set) {
  return fmt::format("{} ({} positions)", set.name, set.positions);
}

/// Where the limit of training stands, if it is one of the limits: of the first run and its first
/// set, since what is reached with it differs little.
std::vector<Mark> trained_mark(const SweptRun& run, const OfLimit& x) {
  for (const SweptLimit& at : run.sets.front().limits) {
    if (at.max_steps == run.trained) return {{x(at), "limit in training"}};
  }
  return {};
}

Chart accuracy_against(const std::vector<SweptRun>& runs, const std::string& axis,
                       const OfLimit& x) {
  Chart chart{{"Accuracy", axis, "share of problems answered right", false, true}, {}};
  const std::vector<const SweptRun*> solved = solved_runs(runs);
  if (!solved.empty()) chart.axes.marks = trained_mark(*solved.front(), x);
  for (size_t s = 0; s < runs.front().sets.size(); ++s) {
    std::vector<Points> lines;
    for (const SweptRun* run : solved) {
      Points& line = lines.emplace_back();
      for (const SweptLimit& at : run->sets[s].limits) line.emplace_back(x(at), at.accuracy);
    }
    const std::string name = set_name(runs.front().sets[s]);
    add_lines(chart, name, lines);
    for (const SweptRun& run : runs) {  // networks without a limit
      if (run.depth == 0) continue;
      const SweptLimit& at = run.sets[s].limits.front();
      chart.series.push_back({name + ", " + run.name,
                              {{x(at), at.accuracy}},
                              s,
                              solved.empty() ? Stroke::Usual : Stroke::Thin});
    }
  }
  return chart;
}

/// A number of each set against the number of positions, sets in rising order; NaN where unknown.
std::vector<Points> by_size(const std::vector<const SweptRun*>& runs,
                            const std::function<double(const SweptRun&, const SweptSet&)>& y) {
  std::vector<Points> lines;
  for (const SweptRun* run : runs) {
    std::map<double, double> line;
    for (const SweptSet& set : run->sets) line[double(set.positions)] = y(*run, set);
    lines.emplace_back(line.begin(), line.end());
  }
  return lines;
}

bool sizes_differ(const SweptRun& run) {
  std::set<int64_t> sizes;
  for (const SweptSet& set : run.sets) sizes.insert(set.positions);
  return sizes.size() == run.sets.size() && sizes.size() > 1;
}

/// As of the limit of training, or else of the first.
const SweptLimit& as_trained(const SweptRun& run, const SweptSet& set) {
  for (const SweptLimit& at : set.limits) {
    if (at.max_steps == run.trained) return at;
  }
  return set.limits.front();
}

Chart accuracy_by_size(const std::vector<SweptRun>& runs) {
  Chart chart{{"Accuracy by size", "positions of a problem", "share answered right", false, true},
              {}};
  const std::vector<const SweptRun*> solved = solved_runs(runs);
  add_lines(chart, "limit in training", by_size(solved, [](const auto& run, const auto& set) {
              return as_trained(run, set).accuracy;
            }));
  add_lines(chart, "largest limit", by_size(solved, [](const auto&, const auto& set) {
              return set.limits.back().accuracy;
            }));
  for (const SweptRun& run : runs) {
    if (run.depth == 0) continue;
    add_lines(chart, run.name, by_size({&run}, [](const auto&, const auto& set) {
                return set.limits.back().accuracy;
              }));
  }
  return chart;
}

Chart evaluations_by_size(const std::vector<const SweptRun*>& solved) {
  Chart chart{{"Evaluations to converge", "positions of a problem",
               "median of the problems that converged", true, true},
              {}};
  add_lines(chart, "at the largest limit", by_size(solved, [](const auto&, const auto& set) {
              return set.evaluations_to_converge();
            }));
  return chart;
}

/// How many problems have a residual within each half decade.
Chart residuals(const std::vector<const SweptRun*>& solved, const char* of,
                const std::function<double(const Trial&)>& residual) {
  Chart chart{{std::string("Residuals of right and wrong problems, ") + of,
               "relative residual at the largest limit",
               "problems in each half decade",
               false,
               true,
               {{solved.front()->stop.rel_tol, "tolerance"}}},
              {}};
  std::map<int, double> counts[2];
  for (const SweptRun* run : solved) {
    for (const SweptSet& set : run->sets) {
      for (const Trial& trial : set.trials.at.back()) {
        const double value = std::clamp(residual(trial), 1e-9, 1e3);
        ++counts[size_t(trial.right)][int(std::floor(2 * std::log10(value)))];
      }
    }
  }
  for (const bool right : {true, false}) {
    Points line;
    const std::map<int, double>& own = counts[size_t(right)];
    for (int bin = own.empty() ? 0 : own.begin()->first - 1;
         !own.empty() && bin <= own.rbegin()->first + 1; ++bin)
      line.emplace_back(std::pow(10, (bin + 0.5) / 2), own.contains(bin) ? own.at(bin) : 0);
    chart.series.push_back({right ? "right" : "wrong", line, right ? 2u : 6u});
  }
  return chart;
}

/// Depth and breadth at equal cost, of one set: a line for each number of starts.
Chart starts_of(const std::vector<const SweptRun*>& solved, size_t set) {
  const SweptSet& first = solved.front()->sets[set];
  Chart chart{{"Depth and breadth, " + set_name(first), "evaluations of a problem, all its starts",
               "share answered right; the smallest residual answers", false, true},
              {}};
  std::map<int64_t, std::vector<Points>> lines;
  for (const SweptRun* run : solved) {
    std::map<int64_t, Points> own;
    for (const Breadth& at : run->sets[set].breadth)
      own[at.starts].emplace_back(at.evaluations, at.by_residual);
    for (auto& [starts, line] : own) lines[starts].push_back(std::move(line));
  }
  for (const auto& [starts, own] : lines)
    add_lines(chart, fmt::format("{} start{}", starts, starts == 1 ? "" : "s"), own);
  return chart;
}

/// Halting rules as points beside the lines of step limits, of one set. Runs need not have the same
/// rules.
Chart halting_of(const std::vector<SweptRun>& runs, size_t set) {
  const SweptSet& first = runs.front().sets[set];
  Chart chart{{"Halting, " + set_name(first), "evaluations of f on one problem, mean",
               "share of problems answered right", false, true},
              {}};
  std::vector<Points> lines;
  const bool all_levels = solved_runs(runs).empty();
  std::vector<std::string> rules;
  for (const SweptRun& run : runs) {
    if (run.depth == 0 || all_levels) {
      Points& line = lines.emplace_back();
      for (const SweptLimit& at : run.sets[set].limits)
        line.emplace_back(at.evaluations, at.accuracy);
    }
    for (const HaltedSet& at : run.sets[set].halted) {
      if (std::count(rules.begin(), rules.end(), at.rule) == 0) rules.push_back(at.rule);
    }
  }
  add_lines(chart, "step limits", lines);
  for (size_t rule = 0; rule < rules.size(); ++rule) {
    for (const SweptRun& run : runs) {
      for (const HaltedSet& at : run.sets[set].halted) {
        if (at.rule != rules[rule]) continue;
        const std::string name = runs.size() > 1 ? at.rule + ", " + run.name : at.rule;
        chart.series.push_back({name, {{at.evaluations, at.accuracy}}, rule + 1});
      }
    }
  }
  return chart;
}

}  // namespace

std::vector<Chart> sweep_charts(const std::vector<SweptRun>& runs) {
  std::vector<Chart> charts{
      accuracy_against(runs, "evaluations of f on one problem, mean",
                       [](const SweptLimit& at) { return at.evaluations; }),
      accuracy_against(runs, "operations on one problem, mean",
                       [](const SweptLimit& at) { return at.operations; }),
      accuracy_against(runs, "seconds a problem", [](const SweptLimit& at) { return at.seconds; })};
  const std::vector<const SweptRun*> solved = solved_runs(runs);
  if (sizes_differ(runs.front())) charts.push_back(accuracy_by_size(runs));
  const auto add_halting = [&] {
    for (size_t set = 0; set < runs.front().sets.size(); ++set) {
      const bool any = std::any_of(runs.begin(), runs.end(), [&](const SweptRun& run) {
        return !run.sets[set].halted.empty();
      });
      if (any) charts.push_back(halting_of(runs, set));
    }
  };
  if (solved.empty()) {
    add_halting();
    return charts;
  }
  if (sizes_differ(runs.front())) charts.push_back(evaluations_by_size(solved));
  charts.push_back(
      residuals(solved, "of all of it", [](const Trial& trial) { return trial.residual; }));
  charts.push_back(
      residuals(solved, "of the worst position", [](const Trial& trial) { return trial.worst; }));
  for (size_t set = 0; set < runs.front().sets.size(); ++set)
    charts.push_back(starts_of(solved, set));
  add_halting();
  return charts;
}

}  // namespace deq
