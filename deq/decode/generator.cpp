#include "deq/decode/generator.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "deq/base/threads.h"

namespace deq {

TextGenerator::TextGenerator(LanguageModel& model, const EquilibriumOptions& equilibrium,
                             int64_t history, int64_t texts, int64_t length)
    : model_(model), texts_(texts), length_(length) {
  DEQ_CHECK(model.cell().causal(),
            "generate: the cell is not causal; expected a model trained with cell-causal");
  DEQ_CHECK(history >= 0, "generate: history = {}; expected >= 0", history);
  DEQ_CHECK(texts >= 1, "generate: {} texts; expected at least one", texts);
  DEQ_CHECK(length >= 0 && length <= history + 1,
            "generate: pieces of {} positions; expected 0 to {}, history and one", length,
            history + 1);
  how_.equilibrium = for_evaluation(equilibrium);
  how_.history = history;
  model.eval();
}

/// Feeds texts equal numbers of tokens.
Report TextGenerator::solve(EquilibriumCache& cache,
                            const std::vector<std::vector<int64_t>>& tokens) {
  c10::NoGradGuard no_tape;
  const FreeThreads threads;
  std::vector<at::Tensor> rows;
  for (const auto& text : tokens) {
    for (const int64_t token : text) {
      DEQ_CHECK(token >= 0 && token < model_.vocabulary(), "generate: token {}; expected 0 to {}",
                token, model_.vocabulary() - 1);
    }
    rows.push_back(at::tensor(text, at::kLong));
  }
  const at::Tensor batch = at::stack(rows);  // (B, T)
  ModelOutput output = model_.forward(batch, cache.histories, how_);
  cache.histories = std::move(output.histories);
  const at::Tensor last = output.z.narrow(1, batch.size(1) - 1, 1);
  cache.log_probabilities = model_.log_probabilities(last).select(1, 0);
  const double worst = output.report.worst_residual();
  if (std::isnan(worst) || worst > report_.worst_residual) report_.worst_residual = worst;
  return std::move(output.report);
}

/// Feeds texts equal numbers of given tokens, piece by piece.
void TextGenerator::solve_prompt(EquilibriumCache& cache,
                                 const std::vector<std::vector<int64_t>>& tokens) {
  const int64_t all = int64_t(tokens.front().size()), length = length_ > 0 ? length_ : all;
  std::vector<int64_t> texts(tokens.size());
  std::iota(texts.begin(), texts.end(), 0);
  for (int64_t first = 0; first < all; first += length) {
    std::vector<std::vector<int64_t>> piece;
    for (const auto& text : tokens)
      piece.emplace_back(text.begin() + first, text.begin() + std::min(all, first + length));
    if (length_ > 0) {
      for (History& level : cache.histories)
        model_.cell().forget(level, texts, how_.history + 1 - length_);
    }
    const Report report = solve(cache, piece);
    report_.prompt_evaluations += report.evaluations;
    report_.prompt_converged_share =
        std::min(report_.prompt_converged_share, report.converged_share());
  }
}

void TextGenerator::feed_all(const std::vector<std::vector<int64_t>>& tokens) {
  DEQ_CHECK(int64_t(tokens.size()) == texts_, "generate: tokens for {} texts; expected {}",
            tokens.size(), texts_);
  const bool first = !cache_.log_probabilities.defined();
  bool equal = true, none = true;
  for (const auto& text : tokens) {
    DEQ_CHECK(!first || !text.empty(),
              "generate: the prompt is empty; expected at least one token");
    equal = equal && text.size() == tokens.front().size();
    none = none && text.empty();
    report_.prompt_tokens += int64_t(text.size());
  }
  if (none) return;
  if (equal) return solve_prompt(cache_, tokens);
  std::vector<EquilibriumCache> texts(tokens.size());
  if (!first) texts = split(cache_);
  for (size_t i = 0; i < texts.size(); ++i) {
    if (!tokens[i].empty()) solve_prompt(texts[i], {tokens[i]});
  }
  cache_ = join(texts);
}

std::vector<int64_t> TextGenerator::next_all(const SamplingOptions& options,
                                             std::vector<at::Generator>& generators) {
  DEQ_CHECK(cache_.log_probabilities.defined(),
            "generate: nothing was fed; expected a prompt of at least one token");
  DEQ_CHECK(int64_t(generators.size()) == texts_, "generate: {} generators for {} texts",
            generators.size(), texts_);
  std::vector<int64_t> drawn;
  std::vector<std::vector<int64_t>> fed;
  for (int64_t text = 0; text < texts_; ++text) {
    drawn.push_back(sample(log_probabilities(text), options, generators[size_t(text)]));
    fed.push_back({drawn.back()});
  }
  const Report report = solve(cache_, fed);
  report_.tokens += texts_;
  report_.evaluations += report.evaluations;
  report_.converged += std::llround(report.converged_share() * double(texts_));
  return drawn;
}

int64_t TextGenerator::next(const SamplingOptions& options, at::Generator& generator) {
  std::vector<at::Generator> one{generator};
  return next_all(options, one).front();
}

void TextGenerator::restore(EquilibriumCache cache) {
  const at::Tensor& next = cache.log_probabilities;
  DEQ_CHECK(next.defined() && next.dim() == 2 && next.size(1) == model_.vocabulary(),
            "generate: the cache expects a token of another vocabulary; expected one of {} tokens",
            model_.vocabulary());
  DEQ_CHECK(next.size(0) == texts_, "generate: a cache of {} texts; expected {}", next.size(0),
            texts_);
  const int64_t levels = model_.options().depth.levels();
  DEQ_CHECK(int64_t(cache.histories.size()) == levels,
            "generate: a cache of {} levels; expected {}", cache.histories.size(), levels);
  cache_ = on_device(std::move(cache), model_.device());
}

}  // namespace deq
