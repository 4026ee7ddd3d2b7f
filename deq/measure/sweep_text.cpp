#include "deq/measure/sweep_text.h"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "deq/measure/measurement.h"

namespace deq {
namespace {

using Json = nlohmann::ordered_json;

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(nullptr); }

Json json_of(const Verdicts& verdicts) {
  return {{"converged_right", verdicts.converged_right},
          {"converged_wrong", verdicts.converged_wrong},
          {"open_right", verdicts.open_right},
          {"open_wrong", verdicts.open_wrong}};
}

Json json_of(const SweptLimit& at, bool is_explicit) {
  Json row{{"max_steps", at.max_steps},           {"accuracy", at.accuracy},
           {"places_right", at.places},           {"evaluations", at.evaluations},
           {"operations", number(at.operations)}, {"seconds", at.seconds}};
  if (is_explicit) return row;
  row["best_accuracy"] = at.best_accuracy;
  row["verdicts"] = json_of(at.verdicts);
  row["roc_area"] = number(at.roc);
  row["roc_area_worst_position"] = number(at.roc_worst);
  row["residual_right"] = number(at.residual_right);
  row["residual_wrong"] = number(at.residual_wrong);
  row["worst_position_right"] = number(at.worst_right);
  row["worst_position_wrong"] = number(at.worst_wrong);
  return row;
}

/// Each problem of a set at its largest limit, a list for each number.
Json problems_of(const SweptSet& set) {
  Json lists;
  for (const char* name :
       {"right", "converged", "residual", "worst_position", "places_right", "evaluations"})
    lists[name] = Json::array();
  for (const Trial& trial : set.trials.at.back()) {
    lists["right"].push_back(trial.right);
    lists["converged"].push_back(trial.converged);
    lists["residual"].push_back(number(trial.residual));
    lists["worst_position"].push_back(number(trial.worst));
    lists["places_right"].push_back(trial.places);
    lists["evaluations"].push_back(trial.evaluations);
  }
  return lists;
}

Json json_of(const SweptSet& set, bool is_explicit) {
  Json row{{"name", set.name}, {"problems", set.problems}, {"positions", set.positions}};
  row["limits"] = Json::array();
  for (const SweptLimit& at : set.limits) row["limits"].push_back(json_of(at, is_explicit));
  row["halting"] = Json::array();
  for (const HaltedSet& at : set.halted)
    row["halting"].push_back({{"rule", at.rule},
                              {"accuracy", at.accuracy},
                              {"evaluations", at.evaluations},
                              {"verdicts", json_of(at.verdicts)}});
  if (!is_explicit) {
    row["evaluations_to_converge"] = number(set.evaluations_to_converge());
    row["converged_wrong"] = set.converged_wrong();
    row["starts"] = Json::array();
    for (const Breadth& at : set.breadth)
      row["starts"].push_back({{"starts", at.starts},
                               {"max_steps", at.limit},
                               {"accuracy", at.by_residual},
                               {"lowest_energy", number(at.by_energy)},
                               {"majority", at.majority},
                               {"any", at.any},
                               {"evaluations", at.evaluations}});
    row["paths"] = Json::array();
    for (const PathRow& path : set.paths)
      row["paths"].push_back({{"from", path.from},
                              {"problems", path.problems},
                              {"same_answer", number(path.same)},
                              {"right", number(path.right)},
                              {"converged", number(path.converged)},
                              {"distance", number(path.distance)},
                              {"cosine", number(path.cosine)}});
  }
  row["each_problem"] = problems_of(set);
  return row;
}

/// Rounded down: 100.0% stands for all of them.
std::string per_cent(double share) {
  if (!std::isfinite(share)) return "–";
  return fmt::format("{:.1f}%", std::floor(1000 * share + 1e-9) / 10);
}

std::string shown(double value, const char* format) {
  return std::isfinite(value) ? fmt::format(fmt::runtime(format), value) : "–";
}

/// 1.2G, 3.4M
std::string large(double value) {
  if (!std::isfinite(value)) return "–";
  for (const auto& [unit, name] : {std::pair(1e12, "T"), {1e9, "G"}, {1e6, "M"}, {1e3, "k"}}) {
    if (value >= unit) return fmt::format("{:.3g}{}", value / unit, name);
  }
  return fmt::format("{:.3g}", value);
}

std::string steps_of(const SweptRun& run, int64_t steps) {
  if (run.depth > 0) return fmt::format("depth {}", run.depth);
  return fmt::format("{}{}", steps, steps == run.trained ? " (trained)" : "");
}

SweepTable limits_table(const std::vector<SweptRun>& runs) {
  SweepTable table{
      "Accuracy against the step limit",
      "Right: every place of the answer, of the state that is returned at the limit, and of the "
      "iterate with the smallest residual so far. Evaluations of f on one problem, until it was "
      "done; operations are those of its products. ROC: how surely a smaller residual says right "
      "(1: always, 0.5: nothing), of all positions together and of the worst one.",
      {"run", "set", "steps", "right", "best residual's", "places", "evaluations", "operations",
       "seconds", "converged right", "converged wrong", "open right", "open wrong", "ROC",
       "ROC, worst position", "residual right", "residual wrong"},
      {}};
  for (const SweptRun& run : runs) {
    for (const SweptSet& set : run.sets) {
      for (const SweptLimit& at : set.limits) {
        std::vector<std::string>& row = table.rows.emplace_back();
        row = {run.name,
               set.name,
               steps_of(run, at.max_steps),
               per_cent(at.accuracy),
               run.depth > 0 ? "–" : per_cent(at.best_accuracy),
               per_cent(at.places),
               fmt::format("{:.1f}", at.evaluations),
               large(at.operations),
               fmt::format("{:.2g}", at.seconds)};
        for (const int64_t count : {at.verdicts.converged_right, at.verdicts.converged_wrong,
                                    at.verdicts.open_right, at.verdicts.open_wrong})
          row.push_back(run.depth > 0 ? "–" : fmt::format("{}", count));
        for (const double area : {at.roc, at.roc_worst}) row.push_back(shown(area, "{:.3f}"));
        for (const double residual : {at.residual_right, at.residual_wrong})
          row.push_back(shown(residual, "{:.1e}"));
      }
    }
  }
  return table;
}

/// Where there are several runs with limits: what they have in common, and how far they differ.
SweepTable seeds_table(const std::vector<SweptRun>& runs) {
  SweepTable table{"All runs together",
                   "Accuracy over the runs with a limit, none left out: mean, lowest and highest.",
                   {"set", "limit, times that in training", "right, mean", "lowest", "highest",
                    "evaluations, mean"},
                   {}};
  std::vector<const SweptRun*> solved;
  for (const SweptRun& run : runs) {
    if (run.depth == 0) solved.push_back(&run);
  }
  if (solved.size() < 2) return table;
  for (size_t set = 0; set < solved.front()->sets.size(); ++set) {
    for (size_t limit = 0; limit < solved.front()->sets[set].limits.size(); ++limit) {
      double sum = 0, evaluations = 0, lowest = 1, highest = 0, times = 0;
      for (const SweptRun* run : solved) {
        if (limit >= run->sets[set].limits.size()) return {};  // other limits
        const SweptLimit& at = run->sets[set].limits[limit];
        sum += at.accuracy / double(solved.size());
        evaluations += at.evaluations / double(solved.size());
        lowest = std::min(lowest, at.accuracy);
        highest = std::max(highest, at.accuracy);
        times += double(at.max_steps) / double(run->trained) / double(solved.size());
      }
      table.rows.push_back({solved.front()->sets[set].name, fmt::format("{:.3g}", times),
                            per_cent(sum), per_cent(lowest), per_cent(highest),
                            fmt::format("{:.1f}", evaluations)});
    }
  }
  return table;
}

SweepTable starts_table(const std::vector<SweptRun>& runs) {
  SweepTable table{"Accuracy against the number of random starts",
                   "At the largest limit. The start with the smallest residual answers; the one "
                   "with the lowest energy, where f descends one; the majority of the answers; any "
                   "of them is right. Evaluations of all starts together.",
                   {"run", "set", "starts", "smallest residual", "lowest energy", "majority", "any",
                    "evaluations"},
                   {}};
  for (const SweptRun& run : runs) {
    for (const SweptSet& set : run.sets) {
      for (const Breadth& at : set.breadth) {
        if (at.limit != set.trials.limits.back()) continue;
        table.rows.push_back({run.name, set.name, fmt::format("{}", at.starts),
                              per_cent(at.by_residual), per_cent(at.by_energy),
                              per_cent(at.majority), per_cent(at.any),
                              fmt::format("{:.1f}", at.evaluations)});
      }
    }
  }
  return table;
}

SweepTable halting_table(const std::vector<SweptRun>& runs) {
  SweepTable table{"Halting rules",
                   "Each problem's solve ends by a rule, or at the largest limit: the residual of "
                   "f is small, the distribution over answers has stopped moving, or what the "
                   "run was trained with. Converged says what f itself makes of the state in which "
                   "it ended, at the tolerance.",
                   {"run", "set", "rule", "right", "evaluations", "converged right",
                    "converged wrong", "open right", "open wrong"},
                   {}};
  for (const SweptRun& run : runs) {
    for (const SweptSet& set : run.sets) {
      for (const HaltedSet& at : set.halted)
        table.rows.push_back(
            {run.name, set.name, at.rule, per_cent(at.accuracy),
             fmt::format("{:.1f}", at.evaluations), fmt::format("{}", at.verdicts.converged_right),
             fmt::format("{}", at.verdicts.converged_wrong),
             fmt::format("{}", at.verdicts.open_right), fmt::format("{}", at.verdicts.open_wrong)});
    }
  }
  return table;
}

SweepTable paths_table(const std::vector<SweptRun>& runs) {
  SweepTable table{
      "Path independence",
      "Solves from another start beside those from zeros, at the largest limit: share "
      "with the same answer, share of which both converged, mean relative distance "
      "and cosine of the two states. The last row of a set says what states of "
      "different problems are like.",
      {"run", "set", "from", "problems", "same answer", "right", "converged", "distance", "cosine"},
      {}};
  for (const SweptRun& run : runs) {
    for (const SweptSet& set : run.sets) {
      for (const PathRow& path : set.paths) {
        if (path.problems == 0) continue;
        table.rows.push_back({run.name, set.name, path.from, fmt::format("{}", path.problems),
                              per_cent(path.same), per_cent(path.right), per_cent(path.converged),
                              shown(path.distance, "{:.1e}"), shown(path.cosine, "{:.4f}")});
      }
    }
  }
  return table;
}

SweepTable wrong_table(const std::vector<SweptRun>& runs) {
  constexpr size_t kMost = 20;
  SweepTable table{"Converged and wrong",
                   "Problems, by their number in the set, whose solve converged at the largest "
                   "limit to an answer that is not the right one: fixed points of which no "
                   "residual warns.",
                   {"run", "set", "of", "problems"},
                   {}};
  for (const SweptRun& run : runs) {
    for (const SweptSet& set : run.sets) {
      const std::vector<int64_t> wrong = set.converged_wrong();
      if (run.depth > 0 || wrong.empty()) continue;
      const std::vector<int64_t> first(wrong.begin(),
                                       wrong.begin() + int64_t(std::min(kMost, wrong.size())));
      table.rows.push_back({run.name, set.name, fmt::format("{}", set.problems),
                            fmt::format("{}: {}{}", wrong.size(), fmt::join(first, ", "),
                                        wrong.size() > kMost ? ", ..." : "")});
    }
  }
  return table;
}

}  // namespace

nlohmann::ordered_json json_of(const std::vector<SweptRun>& runs, const std::string& task) {
  Json all{{"deq", "sweep"}, {"task", task}, {"runs", Json::array()}};
  for (const SweptRun& run : runs) {
    Json row{{"name", run.name}, {"folder", run.folder}, {"parameters", run.parameters}};
    if (run.depth > 0) {
      row["depth"] = run.depth;
    } else {
      row.update(Json{{"trained_steps", run.trained},
                      {"solver", run.solver},
                      {"rel_tol", run.stop.rel_tol},
                      {"abs_tol", run.stop.abs_tol}});
    }
    row["sets"] = Json::array();
    for (const SweptSet& set : run.sets) row["sets"].push_back(json_of(set, run.depth > 0));
    all["runs"].push_back(std::move(row));
  }
  return all;
}

std::vector<SweepTable> tables_of(const std::vector<SweptRun>& runs) {
  std::vector<SweepTable> tables = {seeds_table(runs),   limits_table(runs), starts_table(runs),
                                    halting_table(runs), paths_table(runs),  wrong_table(runs)};
  std::erase_if(tables, [](const SweepTable& table) { return table.rows.empty(); });
  return tables;
}

std::string sweep_tables(const std::vector<SweptRun>& runs) {
  std::string out = kSweepTextStart;
  for (const SweepTable& table : tables_of(runs)) {
    Measurement printed{.columns = table.columns, .rows = table.rows};
    for (auto& row : printed.rows) {
      for (std::string& cell : row) {  // names of folders
        for (size_t at = cell.find('|'); at != std::string::npos; at = cell.find('|', at + 2))
          cell.replace(at, 1, "\\|");
      }
    }
    out += fmt::format("\n## {}\n\n{}\n\n{}", table.title, table.note, markdown(printed));
  }
  return out;
}

}  // namespace deq
