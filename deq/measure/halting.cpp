#include "deq/measure/halting.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <sstream>

#include "deq/base/error.h"
#include "deq/base/printable.h"

namespace deq {

using at::Tensor;

namespace {

/// One of the rules with its options, as a walk over fields wants it.
struct OneRule {
  Halting halting;
  static void fields(auto& self, auto&& field) { field("halting", self.halting); }
};

Halting at_threshold(const Halting& rule, const std::string& threshold) {
  OneRule one{rule};
  assign_options(one, {{"halting_threshold", threshold}});
  return one.halting;
}

std::string threshold_of(const Halting& rule) {
  for (const OptionInfo& info : selected_options(OneRule{rule})) {
    if (info.key == "halting_threshold") return info.value;
  }
  return "";
}

/// A rule that needs no training.
SweptRule parse_known(const std::string& text, const std::string& name, const std::string& number) {
  std::vector<std::string> known;
  for (const Halting& rule : HaltingRule::known()) {
    if (!rule->halts() || rule->learned()) continue;
    known.emplace_back(rule.name());
    if (name != rule.name()) continue;
    char* end = nullptr;
    const double threshold = std::strtod(number.c_str(), &end);
    DEQ_CHECK(!number.empty() && *end == '\0' && threshold > 0 && std::isfinite(threshold),
              "halting = {}; expected a threshold above 0, as {}:1e-2", printable(text), name);
    return {text, at_threshold(rule, number)};
  }
  throw Error(fmt::format("halting: unknown rule '{}'; known: {}, trained", printable(text),
                          fmt::join(known, ", ")));
}

/// One solve's evaluations. A sample that halts stays where its rule leaves it: a state behind the
/// step is evaluated once more.
class HaltingSolve {
 public:
  HaltingSolve(Map::Series f, std::unique_ptr<HaltingJudge> judge)
      : f_(std::move(f)), judge_(std::move(judge)) {}

  Tensor operator()(const Tensor& z, const std::vector<int64_t>& done) {
    const Tensor fz = f_(z, done);
    const Tensor now = judge_->halts({z, fz, fz});
    const Tensor before = halted_.defined() ? halted_ : at::zeros_like(now);
    halted_ = before.logical_or(now);
    const Tensor& stays = judge_->leaves_before() ? halted_ : before;
    return at::where(beside_states(stays.to(z.device()), z), z, fz);
  }

 private:
  Map::Series f_;
  std::unique_ptr<HaltingJudge> judge_;
  Tensor halted_;  // (B)
};

}  // namespace

std::vector<SweptRule> parse_halting(const std::string& text, const Model& model) {
  std::vector<SweptRule> rules;
  if (text == "none") return rules;
  std::istringstream parts(text);
  for (std::string one; std::getline(parts, one, ',');) {
    const size_t colon = std::min(one.find(':'), one.size());
    const std::string name = one.substr(0, colon);
    const std::string number = one.substr(std::min(colon + 1, one.size()));
    if (name != "trained") {
      rules.push_back(parse_known(one, name, number));
      continue;
    }
    const Halting& own = model.options().halting;
    if (!own->halts()) continue;
    const Halting rule = colon == one.size() ? own : at_threshold(own, number);
    rules.push_back({fmt::format("{}:{}", rule.name(), threshold_of(rule)), rule});
  }
  return rules;
}

Map halting(const Map& f, const Halting& rule, const Model& model) {
  DEQ_CHECK(!rule->learned(), "halting = {} of a solver's steps; expected residual or change",
            rule.name());
  return Map([f](const Tensor& z) { return f(z); },
             [f, rule, &model]() -> Map::Series {
               return [own = std::make_shared<HaltingSolve>(f.series(),
                                                            rule->judge(model.readout(), 0))](
                          const Tensor& z, const std::vector<int64_t>& done) {
                 return (*own)(z, done);
               };
             })
      .set_energy(f.energy())
      .set_part(f.part(), f.strictly_causal());
}

}  // namespace deq
