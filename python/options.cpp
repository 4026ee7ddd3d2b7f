#include "python/options.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <cctype>

#include "deq/cells/cells.h"
#include "deq/decode/sampling.h"
#include "deq/gradients/gradients.h"
#include "deq/layers/equilibrium.h"
#include "deq/solvers/solvers.h"
#include "python/bindings.h"

namespace deq::python {
namespace {

bool in_a_word(const std::string& text, size_t at) {
  return at < text.size() &&
         (std::isalnum(static_cast<unsigned char>(text[at])) || text[at] == '-' || text[at] == '_');
}

/// Every whole word `from` of the text as `to`.
std::string spelled(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size())) {
    if ((at > 0 && in_a_word(text, at - 1)) || in_a_word(text, at + from.size())) continue;
    text.replace(at, from.size(), to);
  }
  return text;
}

/// One of a list, and what is done with its own fields alone.
struct Alternative {
  std::string name;
  std::function<void(detail::Walk&)> walk;
};

template <class Interface>
std::vector<Alternative> alternatives_of() {
  std::vector<Alternative> found;
  for (const Choice<Interface>& one : Interface::known())
    found.push_back({one.name(), [held = Choice<Interface>(one)](detail::Walk& walk) mutable {
                       held->walk(walk);
                     }});
  return found;
}

std::vector<Alternative> alternatives(const std::string& kind) {
  if (kind == "solver") return alternatives_of<SolverMethod>();
  if (kind == "gradient") return alternatives_of<GradientMode>();
  DEQ_CHECK(kind == "cell", "kind = {}; expected solver, gradient or cell", kind);
  return alternatives_of<CellMaker>();
}

/// Name -> its own options, with their defaults.
std::vector<std::pair<std::string, std::vector<OptionInfo>>> list_alternatives(
    const std::string& kind) {
  std::vector<std::pair<std::string, std::vector<OptionInfo>>> listed;
  for (const Alternative& one : alternatives(kind))
    listed.emplace_back(one.name, detail::list(one.walk, /*only_selected=*/false));
  return listed;
}

/// Throws deq::Error for values that the alternative of that name does not take.
void check_alternative(const std::string& kind, const std::string& name,
                       const Assignments& values) {
  for (const Alternative& one : alternatives(kind)) {
    if (one.name != name) continue;
    const auto all = detail::list(one.walk, /*only_selected=*/false);
    with_python_names(all, values, [&] {
      const auto unknown = detail::assign(one.walk, values);
      if (!unknown.empty())
        detail::reject_unknown(unknown.front(), all,
                               detail::list(one.walk, /*only_selected=*/true));
    });
  }
}

void bind_option_info(py::module_& module) {
  py::class_<OptionInfo>(module, "OptionInfo")
      .def_readonly("key", &OptionInfo::key)
      .def_readonly("value", &OptionInfo::value)
      .def_readonly("type", &OptionInfo::type)
      .def_readonly("choices", &OptionInfo::choices)
      .def_readonly("owner", &OptionInfo::owner)
      .def_property_readonly("help", [](const OptionInfo& info) { return help_of(info, false); });
}

}  // namespace

void with_python_names(const std::vector<OptionInfo>& known, const Assignments& given,
                       const std::function<void()>& act) {
  try {
    act();
  } catch (const Error& error) {
    std::string message = error.what();
    for (const OptionInfo& info : known) message = spelled(message, dashed(info.key), info.key);
    for (const auto& [key, text] : given) message = spelled(message, dashed(key), key);
    throw Error(message);
  }
}

void bind_options(py::module_& module) {
  bind_option_info(module);
  py::class_<EquilibriumOptions>(module, "EquilibriumOptions")
      .def(py::init([](const Assignments& values) {
        EquilibriumOptions options;
        assign(options, values);
        return options;
      }))
      .def_property_readonly(
          "gradient", [](const EquilibriumOptions& options) { return options.gradient.name(); });
  module.def("alternatives", &list_alternatives);
  module.def("check_alternative", &check_alternative);
  module.def("equilibrium_options", [] { return list_options(EquilibriumOptions()); });
  module.def("sampling_options", [] { return list_options(SamplingOptions()); });
}

}  // namespace deq::python
