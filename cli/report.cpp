// `deq report RUN...`: a page with what the runs did, side by side.

#include <fstream>

#include "cli/commands.h"
#include "cli/parse.h"
#include "cli/run_names.h"
#include "cli/threads.h"
#include "deq/files/files.h"
#include "deq/measure/memory_tracks.h"
#include "deq/report/page.h"

namespace deq::cli {
namespace {

struct SolvesWanted {
  int64_t count = 0;
  std::string data;  // "": the run's
};

/// What the model's memory did with the first problem of a split, or with its first segment.
MemoryPicture memory_along(const TrainedModel& run, const Split& split) {
  run.model->eval();
  at::Tensor problem = split.sequences() ? split.tokens[0].to(at::kLong)
                                         : split.tokens.slice(0, 0, run.options.eval.length);
  if (split.extents.defined())
    for (int64_t axis = 0; axis < split.extents.size(1); ++axis)
      problem = problem.slice(axis, 0, split.extents[0][axis].item<int64_t>());
  MemoryPicture picture;
  for (MemoryTrack& track : memory_tracks(*run.model, problem))
    picture.tracks.push_back({std::move(track.name), std::move(track.at)});
  for (int64_t t = 0; t < problem.size(0) && !picture.tracks.empty(); ++t)
    picture.symbols.push_back(symbol_at(run.vocabulary, problem, t));
  return picture;
}

/// Without the data a page is still worth having: it says what it lacks. Data that were asked for,
/// and weights that are damaged, are another matter.
void look_at_model(ReportedRun& run, const SolvesWanted& wanted) {
  if (wanted.count == 0) return;
  const std::filesystem::path folder = run.record.name;
  if (!std::filesystem::exists(folder / "best.safetensors") &&
      !std::filesystem::exists(folder / "last.safetensors")) {
    run.no_passage = "the run has no checkpoint yet";
    return;
  }
  const TrainedModel model = load_run(run.record.name);
  run.parameters = model.model->parameter_count(true);
  try {
    const std::string& data = wanted.data.empty() ? model.options.data : wanted.data;
    const Corpus corpus = load_corpus(model, data);
    run.memory = memory_along(model, corpus.valid);
    run.passage = solve_passage(model, corpus.valid, wanted.count);
  } catch (const Error& error) {
    if (!wanted.data.empty()) throw;
    run.no_passage = error.what();
  }
}

/// Only a page of ours is replaced.
void check_replaceable(const std::filesystem::path& out) {
  if (!std::filesystem::exists(out)) return;
  DEQ_CHECK(std::filesystem::is_regular_file(out), "--out '{}' is no file", out.string());
  std::ifstream file(out);
  std::string start(std::string_view(kPageStart).size(), '\0');
  file.read(start.data(), std::streamsize(start.size()));
  DEQ_CHECK(start == kPageStart, "--out '{}' exists and is no report; expected a new name",
            out.string());
}

}  // namespace

int report(int argc, char** argv) {
  CLI::App app("Writes one HTML page about a run, or about several side by side.", "deq report");
  std::vector<std::string> folders;
  std::string out;
  int64_t threads = 0;
  SolvesWanted wanted{.count = 3};
  app.add_option("RUN", folders, "run folders")->required();
  app.add_option("--out", out, "the page [RUN/report.html; of several runs report.html]");
  app.add_option("--solves", wanted.count,
                 "segments of the validation split to solve and show; 0: none [3]")
      ->check(CLI::Range(0, 64));
  app.add_option("--data", wanted.data, "text for these, in place of the run's");
  app.add_option("--threads", threads, "threads; 0: all cores")->check(CLI::Range(0, 4096));
  if (const auto code = parse(app, argc, argv)) return *code;
  use_threads(threads);

  DEQ_CHECK(wanted.data.empty() || wanted.count > 0,
            "data = {}: nothing is solved with --solves 0; expected one of the two", wanted.data);
  if (out.empty()) {
    const std::filesystem::path folder = folders.size() == 1 ? folders.front() : "";
    out = (folder / "report.html").string();
  }
  check_different(folders);
  check_replaceable(out);
  std::vector<RunRecord> records;
  for (const std::string& folder : folders) records.push_back(read_run(folder));
  check_comparable(records);
  std::vector<ReportedRun> runs;
  for (RunRecord& record : records) {
    runs.push_back({.record = std::move(record)});
    look_at_model(runs.back(), wanted);
  }
  write_file(out, report_page(runs));
  fmt::print("wrote {}\n", out);
  return 0;
}

}  // namespace deq::cli
