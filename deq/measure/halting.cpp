#include "deq/measure/halting.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstdlib>
#include <sstream>

#include "deq/base/error.h"
#include "deq/base/printable.h"
#include "deq/measure/trials.h"

namespace deq {

using at::Tensor;

namespace {

std::vector<char> flags_of(const Tensor& halted) {
  const Tensor own = halted.to(at::kCPU, at::kByte).contiguous();
  const auto* first = own.data_ptr<uint8_t>();
  return {first, first + own.numel()};
}

HaltingJudge by_residual(const Model&, double threshold) {
  return [threshold](const Tensor& z, const Tensor& fz) {
    return flags_of(residuals_of(z, fz).samples.le(threshold));
  };
}

HaltingJudge by_change(const Model& model, double threshold) {
  constexpr int64_t kInARow = 2;
  return [&model, threshold, before = Tensor(), still = Tensor()](const Tensor&,
                                                                  const Tensor& fz) mutable {
    const Tensor now = model.log_probabilities(fz).exp();
    if (!before.defined()) {
      still = at::zeros({now.size(0)}, now.options().dtype(at::kLong));
    } else {
      const Tensor moved = 0.5 * (now - before).abs().sum(-1).flatten(1);
      const Tensor at_rest = std::get<0>(moved.max(1)).le(threshold);
      still = (still + 1) * at_rest.to(at::kLong);
    }
    before = now;
    return flags_of(still.ge(kInARow));
  };
}

struct Kind {
  const char* name;
  HaltingJudge (*start)(const Model& model, double threshold);
};

// The list.
constexpr Kind kKinds[] = {{"residual", by_residual}, {"change", by_change}};

HaltingRule parse_rule(const std::string& text) {
  std::vector<std::string> known;
  const size_t colon = std::min(text.find(':'), text.size());
  const std::string number = text.substr(std::min(colon + 1, text.size()));
  char* end = nullptr;
  const double threshold = std::strtod(number.c_str(), &end);
  for (const Kind& kind : kKinds) {
    known.emplace_back(kind.name);
    if (text.substr(0, colon) != kind.name) continue;
    DEQ_CHECK(!number.empty() && *end == '\0' && threshold > 0 && std::isfinite(threshold),
              "halting = {}; expected a threshold above 0, as {}:1e-2", printable(text), kind.name);
    return {text, [start = kind.start, threshold](const Model& model) {
              return start(model, threshold);
            }};
  }
  throw Error(fmt::format("halting: unknown rule '{}'; known: {}", printable(text),
                          fmt::join(known, ", ")));
}

/// One solve's evaluations.
class Halting {
 public:
  Halting(Map::Series f, HaltingJudge judge) : f_(std::move(f)), judge_(std::move(judge)) {}

  Tensor operator()(const Tensor& z, const std::vector<int64_t>& done) {
    const Tensor fz = f_(z, done);
    const std::vector<char> now = judge_(z, fz);
    halted_.resize(now.size(), 0);
    for (size_t b = 0; b < now.size(); ++b) halted_[b] = halted_[b] || now[b];
    std::vector<int64_t> shape(size_t(z.dim()), 1);
    shape[0] = z.size(0);
    const Tensor stay = at::tensor(std::vector<int64_t>(halted_.begin(), halted_.end()), at::kLong)
                            .ne(0)
                            .to(z.device())
                            .view(shape);
    return at::where(stay, z, fz);
  }

 private:
  Map::Series f_;
  HaltingJudge judge_;
  std::vector<char> halted_;
};

}  // namespace

std::vector<HaltingRule> parse_halting(const std::string& text) {
  std::vector<HaltingRule> rules;
  std::istringstream parts(text);
  for (std::string one; std::getline(parts, one, ',');) rules.push_back(parse_rule(one));
  return rules;
}

Map halting(const Map& f, const HaltingRule& rule, const Model& model) {
  return Map([f](const Tensor& z) { return f(z); },
             [f, rule, &model]() -> Map::Series {
               return [own = std::make_shared<Halting>(f.series(), rule.start(model))](
                          const Tensor& z, const std::vector<int64_t>& done) {
                 return (*own)(z, done);
               };
             })
      .set_energy(f.energy())
      .set_part(f.part(), f.strictly_causal());
}

}  // namespace deq
