// `deq report RUN...`: a page with what the runs did, side by side.
#include "cli/commands.h"
#include "cli/parse.h"
#include "deq/base/files.h"
#include "deq/report/page.h"

namespace deq::cli {
namespace {

struct SolvesWanted {
  int64_t count = 0;
  std::string data;  // "": the run's
};

/// Without the data or the weights a page is still worth having: it says what it lacks. Data that
/// were asked for are another matter.
void add_passage(ReportedRun& run, const SolvesWanted& wanted) {
  if (wanted.count == 0) return;
  try {
    const TrainedModel model = load_run(run.record.name);
    const Corpus corpus =
        load(model.options.task, wanted.data.empty() ? model.options.data : wanted.data,
             model.vocabulary);
    run.passage = solve_passage(model, corpus.valid, wanted.count);
  } catch (const Error& error) {
    if (!wanted.data.empty()) throw;
    run.no_passage = error.what();
  }
}

}  // namespace

int report(int argc, char** argv) {
  CLI::App app("Writes one HTML page about a run, or about several side by side.", "deq report");
  std::vector<std::string> folders;
  std::string out;
  SolvesWanted wanted{.count = 3};
  app.add_option("RUN", folders, "run folders")->required();
  app.add_option("--out", out, "the page [RUN/report.html; of several runs report.html]");
  app.add_option("--solves", wanted.count,
                 "segments of the validation split to solve and show; 0: none [3]")
      ->check(CLI::Range(0, 64));
  app.add_option("--data", wanted.data, "text for these, in place of the run's");
  if (const auto code = parse(app, argc, argv)) return *code;

  std::vector<RunRecord> records;
  for (const std::string& folder : folders) records.push_back(read_run(folder));
  check_comparable(records);
  std::vector<ReportedRun> runs;
  for (RunRecord& record : records) {
    runs.push_back({.record = std::move(record)});
    add_passage(runs.back(), wanted);
  }
  if (out.empty()) {
    const std::filesystem::path page = "report.html";
    out = folders.size() == 1 ? (std::filesystem::path(folders.front()) / page).string()
                              : page.string();
  }
  write_file(out, report_page(runs));
  fmt::print("wrote {}\n", out);
  return 0;
}

}  // namespace deq::cli
