#include "deq/measure/decoding.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "deq/decode/generator.h"
#include "deq/models/language_model.h"

namespace deq {
namespace {

using at::Tensor;

/// Log-probabilities (n, V) after each token, and what they took.
struct Run {
  Tensor log_probabilities;
  double seconds = 0;
  double converged = 0;  // share of its equilibria
};

class Text {
 public:
  Text(const TrainedModel& run, const EquilibriumOptions& equilibrium, const Tensor& tokens)
      : run_(run), equilibrium_(for_evaluation(equilibrium)), tokens_(tokens) {}

  Run at_once() const {
    Run found;
    found.seconds =
        seconds_of([&] { found.log_probabilities = solved(tokens_.size(0), &found.converged); });
    return found;
  }

  Run one_by_one() const {
    Run found;
    std::vector<Tensor> after;
    TextGenerator generator(language_model(*run_.model), equilibrium_, tokens_.size(0));
    const int64_t* ids = tokens_.data_ptr<int64_t>();
    found.seconds = seconds_of([&] {
      for (int64_t t = 0; t < tokens_.size(0); ++t) {
        generator.feed({ids[t]});
        after.push_back(generator.log_probabilities());
      }
    });
    found.log_probabilities = at::stack(after);
    return found;
  }

  /// The last row of some prefixes each, which `of` are; the seconds are those of all prefixes, if
  /// the others take as long as these on average.
  Run again(const std::vector<int64_t>& of) const {
    Run found;
    std::vector<Tensor> after;
    const double spent = seconds_of([&] {
      for (const int64_t n : of) after.push_back(solved(n)[-1]);
    });
    found.seconds = spent / double(of.size()) * double(tokens_.size(0));
    found.log_probabilities = at::stack(after);
    return found;
  }

 private:
  Tensor solved(int64_t n, double* converged = nullptr) const {
    const LayerOutput found =
        run_.model->forward(tokens_.narrow(0, 0, n).unsqueeze(0), {}, {equilibrium_});
    if (converged) *converged = found.report.converged_share();
    return run_.model->log_probabilities(found.z)[0];
  }

  const TrainedModel& run_;
  EquilibriumOptions equilibrium_;
  Tensor tokens_;
};

}  // namespace

Measurement measure_decoding(const TrainedModel& run, const Split& split,
                             const DecodingOptions& options) {
  check_equilibrium(run);
  DEQ_CHECK(continues_text(run.options.task),
            "run '{}' is of task {}, which answers whole sequences; expected a text to continue",
            run.folder, task_name(run.options.task));
  for (const int64_t n : options.lengths)
    DEQ_CHECK(n >= 1 && n <= split.tokens.size(0), "lengths = {}; expected 1 to the split's {}",
              fmt::join(options.lengths, ","), split.tokens.size(0));
  c10::NoGradGuard no_tape;
  run.model->eval();
  Measurement found;
  found.columns = {"tokens",
                   "at once, tokens/s",
                   "kept, tokens/s",
                   "prefixes again, tokens/s",
                   "kept against again",
                   "converged at once",
                   "largest change of log p: kept",
                   "again"};
  Chart chart{{"Tokens per second", "tokens of the text", "", true, true},
              {{"all at once", {}},
               {"one by one, earlier ones kept", {}},
               {"one by one, prefixes solved again", {}}}};
  for (const int64_t n : options.lengths) {
    const Text text(run, options.equilibrium, split.tokens.narrow(0, 0, n).contiguous());
    std::vector<int64_t> prefixes;
    for (int64_t i = 0; i < options.prefixes; ++i)
      prefixes.push_back(std::clamp<int64_t>((2 * i + 1) * n / (2 * options.prefixes), 1, n));
    text.at_once();  // warms up
    const Run whole = text.at_once(), kept = text.one_by_one(), again = text.again(prefixes);
    const auto change = [&](const Tensor& mine, const Tensor& expected) {
      return fmt::format("{:.1e}", (mine - expected).abs().max().item<double>());
    };
    std::vector<Tensor> ends;
    for (const int64_t prefix : prefixes) ends.push_back(whole.log_probabilities[prefix - 1]);
    const double rates[] = {double(n) / whole.seconds, double(n) / kept.seconds,
                            double(n) / again.seconds};
    for (size_t i = 0; i < 3; ++i) chart.series[i].points.emplace_back(double(n), rates[i]);
    found.rows.push_back({fmt::format("{}", n), fmt::format("{:.0f}", rates[0]),
                          fmt::format("{:.0f}", rates[1]), fmt::format("{:.1f}", rates[2]),
                          fmt::format("{:.1f} times", rates[1] / rates[2]),
                          fmt::format("{:.1f}%", 100 * whole.converged),
                          change(kept.log_probabilities, whole.log_probabilities),
                          change(again.log_probabilities, at::stack(ends))});
  }
  found.charts = {chart};
  return found;
}

}  // namespace deq
