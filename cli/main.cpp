// `deq <command> [options]`: the table of commands, and the one place that turns errors into exit
// codes. 0: done; 1: it failed; 2: the command line was wrong; 3: of `answer`, not all is trusted,
// of `fill` and `forecast`, a solve has not converged.
#include <c10/util/Exception.h>
#include <fmt/format.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "cli/threads.h"
#include "deq/base/error.h"
#include "deq/base/fields.h"

namespace deq::cli {
namespace {

struct Command {
  const char* name;
  int (*run)(int argc, char** argv);
  const char* help;
};

constexpr Command kCommands[] = {
    {"train", train, "train a model into a run folder, or go on with one"},
    {"eval", eval, "perplexity of a text, with residual and converged share"},
    {"answer", answer, "answer problems, and say which answers are to be trusted"},
    {"generate", generate, "continue a text, one equilibrium per new token"},
    {"fill", fill, "fill the holes of a text, all of them as one equilibrium"},
    {"forecast", forecast, "the values that follow a series, as CSV and on a page"},
    {"bench", bench, "time a training step and a new token of a run"},
    {"measure", measure, "what the paper claims of a run or several, as a table and a picture"},
    {"sweep", sweep, "what more steps and more starts give, for problems with an answer"},
    {"report", report, "a page with loss, residuals and solves of one run or several"},
    {"import", import_weights, "weights of the published code as a run folder"},
    {"data", data, "fetch the usual text data sets; say what is in one"},
    {"info", info, "what this build runs on: versions, BLAS, SIMD, threads, CUDA"},
};

std::vector<std::string> command_names() {
  std::vector<std::string> names;
  for (const Command& command : kCommands) names.push_back(command.name);
  return names;
}

void print_help(std::FILE* out) {
  fmt::print(out, "deq {}: deep equilibrium sequence models\n\nusage: deq <command> [options]\n\n",
             DEQ_VERSION);
  for (const Command& command : kCommands)
    fmt::print(out, "  {:<10} {}\n", command.name, command.help);
  fmt::print(out,
             "\n`deq <command> --help` lists a command's usual options, --help-all every one.\n");
}

int run(int argc, char** argv) {
  if (argc < 2) {
    print_help(stderr);
    return 2;
  }
  const std::string name = argv[1];
  if (name == "help" || name == "--help" || name == "-h") {
    print_help(stdout);
    return 0;
  }
  if (name == "--version" || name == "version") {
    fmt::print("deq {}\n", DEQ_VERSION);
    return 0;
  }
  for (const Command& command : kCommands) {
    if (name != command.name) continue;
    use_all_cores();
    return command.run(argc - 2, argv + 2);
  }
  const std::string near = nearest(name, command_names());
  fmt::print(stderr, "error: unknown command '{}'; known: {}{}\n", name,
             join(command_names(), ", "),
             near.empty() ? "" : fmt::format("; did you mean '{}'?", near));
  return 2;
}

/// The first line: LibTorch's messages go on with hints and traces that a command's user cannot
/// use. Not fmt::print, which throws where stderr cannot be written to either.
void print_error(const std::string& message) {
  std::fputs(("error: " + message.substr(0, message.find('\n')) + "\n").c_str(), stderr);
}

/// What a command has printed may still wait in stdout's buffer: a full disk shows here.
int flushed(int exit_code) {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return exit_code;
  print_error(std::string("cannot write the output: ") +
              (errno ? std::strerror(errno) : "an earlier write failed"));
  return exit_code ? exit_code : 1;
}

}  // namespace
}  // namespace deq::cli

int main(int argc, char** argv) {
#ifdef __GLIBC__
  // Tensors come and go at every step: keep their pages instead of handing them back to the kernel
  // each time.
  mallopt(M_MMAP_THRESHOLD, 1 << 30);
  mallopt(M_TRIM_THRESHOLD, 1 << 30);
#endif
  try {
    return deq::cli::flushed(deq::cli::run(argc, argv));
  } catch (const c10::Error& error) {
    deq::cli::print_error(error.what_without_backtrace());
  } catch (const std::exception& error) {
    deq::cli::print_error(error.what());
  }
  return 1;
}
