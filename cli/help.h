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

  std::string make_groups(const CLI::App* app, CLI::AppFormatMode mode) const override {
    if (mode == CLI::AppFormatMode::All) return CLI::Formatter::make_groups(app, mode);
    const auto shown = app->get_options([&](const CLI::Option* option) {
      return option->nonpositional() && usual_.contains(option->get_single_name());
    });
    const size_t all =
        app->get_options([](const CLI::Option* option) { return option->nonpositional(); }).size();
    return make_group("The usual options", false, shown) + "\nAll " + std::to_string(all) +
           " of them: " + app->get_name() + " --help-all\n";
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
