// What `--help` prints of a command with many options: the usual ones, on one screen. `--help-all`
// prints every option, in groups.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "deq/base/error.h"

namespace deq::cli {

/// Lists the options in `usual` alone, unless all are asked for.
class ShortHelp : public CLI::Formatter {
 public:
  explicit ShortHelp(std::set<std::string> usual) : usual_(std::move(usual)) {}

  std::string make_help(const CLI::App* app, std::string name,
                        CLI::AppFormatMode mode) const override {
    if (mode == CLI::AppFormatMode::All) return CLI::Formatter::make_help(app, name, mode);
    const auto is_flag = [](const CLI::Option* option) { return option->nonpositional(); };
    const auto is_shown = [&](const CLI::Option* option) {
      return is_flag(option) && usual_.contains(option->get_single_name());
    };
    return make_description(app) + make_usage(app, name) + make_positionals(app) +
           make_group("The usual options", false, app->get_options(is_shown)) + "\nAll " +
           std::to_string(app->get_options(is_flag).size()) + " of them: " + app->get_name() +
           " --help-all\n\n" + make_footer(app);
  }

 private:
  std::set<std::string> usual_;
};

/// `usual` by the names of the flags, without their dashes.
inline void use_short_help(CLI::App& app, std::set<std::string> usual) {
  app.set_help_all_flag("--help-all", "print every option, and exit");
  usual.insert({"help", "help-all"});
  for (const std::string& name : usual)
    DEQ_CHECK(app.get_option_no_throw("--" + name), "{}: no flag --{} to show", app.get_name(),
              name);
  app.formatter(std::make_shared<ShortHelp>(std::move(usual)));
}

}  // namespace deq::cli
