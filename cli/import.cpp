// `deq import WEIGHTS RUN`: weights of the published code as a run folder for eval and generate.
#include "deq/runs/import.h"

#include "cli/commands.h"
#include "cli/options.h"
#include "cli/parse.h"
#include "cli/progress.h"

namespace deq::cli {

int import_weights(int argc, char** argv) {
  CLI::App app(
      "Turns a safetensors file with the published parameter names into a run folder that `deq "
      "eval` and `deq generate` accept.",
      "deq import");
  std::string weights, folder;
  Assignments flags;
  app.add_option("WEIGHTS", weights, "safetensors file")->required();
  app.add_option("RUN", folder, "the run folder to write")->required();
  add_options(app, ImportOptions{}, flags);
  if (const auto code = parse(app, argc, argv)) return *code;

  ImportOptions options;
  assign_options(options, flags);
  const TrainOptions run = import_published(weights, folder, options);
  fmt::print("imported '{}' into '{}': {}\n", weights, folder, run.model.cell.name());
  const bool named = !options.vocabulary.empty() || !options.data.empty();
  fmt::print("try: deq eval {}{}\n", folder,
             !named             ? " --data FILE --split all, a file of token numbers"
             : run.data.empty() ? " --data FOLDER"
                                : "");
  return 0;
}

}  // namespace deq::cli
