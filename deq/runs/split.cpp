#include "deq/runs/split.h"

#include <filesystem>

#include "deq/runs/run_folder.h"
#include "deq/tasks/sudoku.h"
#include "deq/tasks/time_series.h"

namespace deq {
namespace {

struct OfTheTask {
  Task task;
  static void fields(auto& self, auto&& field) { field("task", self.task); }
};

/// What an evaluation reads; "" where there is no such split.
std::string sum_with(TrainedModel run, const std::string& data, const std::string& name,
                     const Assignments& given) {
  try {
    OfTheTask of{run.options.task};
    assign_options(of, given);
    set_task(run, of.task);
    const Split split = split_of(run, data, name);
    return data_sum(split);
  } catch (const Error&) {
    return "";
  }
}

/// Those that can be without effect. A season is of the baseline beside the scores. Boards that are
/// made take long to make, and are all other ones where any other number of them is made; fewer
/// givens than they stand on leave them as they are.
bool may_be_idle(const Task& task, bool made, const std::string& key) {
  if (task.is<TimeSeries>()) return key != "task_season";
  if (!made || !task.is<Sudoku>()) return true;
  return key == "task_train" || key == "task_more_givens" || key == "task_renamed" ||
         key == "task_givens";
}

}  // namespace

Split split_of(const TrainedModel& run, const std::string& data, const std::string& name) {
  const std::string& source = data.empty() ? run.options.data : data;
  if (name == "all" && continues_text(run.options.task)) {
    DEQ_CHECK(std::filesystem::is_regular_file(source),
              "--split all: '{}' is no file; expected --data with one", source);
    return {.tokens = load_tokens(source, run.vocabulary)};
  }
  return load_corpus(run, data).split(name);
}

void check_task_options(const TrainedModel& run, const std::string& data, const std::string& name,
                        const Assignments& given) {
  Assignments of_the_task;
  for (const auto& [key, value] : given) {
    if (key.rfind("task_", 0) == 0) of_the_task.emplace(key, value);
  }
  if (of_the_task.empty()) return;
  const bool made = data.empty() && run.options.data.empty();
  const std::string sum = sum_with(run, data, name, of_the_task);
  for (const OptionInfo& info : selected_options(OfTheTask{run.options.task})) {
    const auto found = of_the_task.find(info.key);
    if (found == of_the_task.end() || found->second == info.value ||
        !may_be_idle(run.options.task, made, info.key))
      continue;
    Assignments others = of_the_task;
    others.erase(info.key);
    DEQ_CHECK(sum.empty() || sum_with(run, data, name, others) != sum,
              "{} = {}: the problems of split {} are the same without it; expected an option of "
              "theirs",
              dashed(info.key), found->second, name);
  }
}

}  // namespace deq
