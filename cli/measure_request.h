// What the kinds of `deq measure` share on the command line.
#pragma once

#include <filesystem>

#include "cli/options.h"
#include "cli/parse.h"
#include "cli/run_names.h"
#include "cli/threads.h"
#include "deq/files/files.h"
#include "deq/measure/measurement.h"
#include "deq/runs/run.h"

namespace deq::cli {

/// What kinds share: the runs and their data, where the picture goes, threads. Each takes what it
/// has use for, then parses.
struct Request {
  CLI::App app;
  std::vector<std::string> folders;
  std::string data, checkpoint, figure;
  int64_t threads = 0;
  Assignments flags, reading;

  Request(const char* kind, const char* help) : app(help, fmt::format("deq measure {}", kind)) {}

  Request& take_run() {
    app.add_option("RUN", folders, "run folder")->required()->expected(1);
    return *this;
  }
  Request& take_runs() {
    app.add_option("RUN", folders, "run folders")->required();
    return *this;
  }
  Request& take_data() {
    app.add_option("--data", data, "text, in place of the run's");
    app.add_option("--checkpoint", checkpoint, "best or last [best]");
    return *this;
  }
  /// Of kinds that evaluate.
  Request& take_reading() {
    add_options(app, ReadingOptions{}, reading, Defaults::Hidden);
    return *this;
  }
  Request& take_figure() {
    app.add_option("--figure", figure, "also write the numbers as a picture, an .svg file");
    return *this;
  }
  Request& take_threads() {
    app.add_option("--threads", threads, "threads; 0: all cores")->check(CLI::Range(0, 4096));
    return *this;
  }

  /// As cli::parse; `how` are the kind's own options, whose values land in `flags`.
  template <class T>
  std::optional<int> parse(const T& how, int argc, char** argv,
                           Defaults defaults = Defaults::Shown) {
    add_options(app, how, flags, defaults);
    if (const auto code = cli::parse(app, argc, argv)) return code;
    use_threads(threads);
    check_different(folders);
    check_figure();
    return std::nullopt;
  }

  std::vector<std::string> names() const { return names_of(folders); }
  TrainedModel run(size_t number = 0) const {
    TrainedModel found = load_run(folders[number], checkpoint);
    ReadingOptions how;
    assign_options(how, reading);
    found.model->read_weights(how);
    return found;
  }
  Corpus corpus(const TrainedModel& run) const { return load_corpus(run, data); }

  void print(const Measurement& found) const {
    fmt::print("{}", markdown(found));
    if (figure.empty()) return;
    write_file(figure, picture(found.charts));
    fmt::print(stderr, "wrote {}\n", figure);
  }

 private:
  /// Only a picture is replaced.
  void check_figure() const {
    if (figure.empty()) return;
    DEQ_CHECK(std::filesystem::path(figure).extension() == ".svg",
              "--figure '{}'; expected a name that ends in .svg", figure);
    if (std::filesystem::exists(figure)) {
      DEQ_CHECK(std::filesystem::is_regular_file(figure) &&
                    read_file(figure, 1 << 26).rfind(kPictureStart, 0) == 0,
                "--figure '{}' exists and is no picture of measure's; expected a new name", figure);
    }
  }
};

}  // namespace deq::cli
