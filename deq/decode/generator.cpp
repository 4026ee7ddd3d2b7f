#include "deq/decode/generator.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "deq/base/threads.h"
#include "deq/decode/batch.h"

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
  LayerOutput output = model_.forward(batch, cache.histories, how_);
  cache.histories = std::move(output.histories);
  const at::Tensor last = output.z.narrow(1, batch.size(1) - 1, 1);
  cache.log_probabilities = model_.log_probabilities(last).select(1, 0);
  saw(output.report.worst_residual());
  return std::move(output.report);
}

void TextGenerator::saw(double residual) {
  if (std::isnan(residual) || residual > report_.worst_residual) report_.worst_residual = residual;
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

void TextGenerator::check_generators(const std::vector<at::Generator>& generators) const {
  DEQ_CHECK(cache_.log_probabilities.defined(),
            "generate: nothing was fed; expected a prompt of at least one token");
  DEQ_CHECK(int64_t(generators.size()) == texts_, "generate: {} generators for {} texts",
            generators.size(), texts_);
}

std::vector<int64_t> TextGenerator::next_all(const SamplingOptions& options,
                                             std::vector<at::Generator>& generators) {
  check_generators(generators);
  std::vector<int64_t> drawn;
  std::vector<std::vector<int64_t>> fed;
  for (int64_t text = 0; text < texts_; ++text) {
    drawn.push_back(sample(log_probabilities(text), options, generators[size_t(text)]));
    fed.push_back({drawn.back()});
  }
  count(solve(cache_, fed), texts_);
  return drawn;
}

/// A token of so many texts.
void TextGenerator::count(const Report& report, int64_t texts) {
  report_.tokens += texts;
  report_.evaluations += report.evaluations * texts;
  report_.converged += std::llround(report.converged_share() * double(texts));
}

void TextGenerator::generate(const std::vector<int64_t>& counts, const SamplingOptions& options,
                             std::vector<at::Generator>& generators, const OnToken& on_token) {
  check_generators(generators);
  DEQ_CHECK(int64_t(counts.size()) == texts_ &&
                std::all_of(counts.begin(), counts.end(), [](int64_t n) { return n >= 0; }),
            "generate: [{}] tokens for {} texts; expected a number of each, none below 0",
            fmt::join(counts, ", "), texts_);
  if (model_.is_explicit() || !model_.device().is_cpu())
    return generate_in_step(counts, options, generators, on_token);
  Batch(*this, counts, options, generators, on_token).run();
}

/// A token of every text at a time; what is still to be drawn of some is drawn without the others.
void TextGenerator::generate_in_step(std::vector<int64_t> counts, const SamplingOptions& options,
                                     std::vector<at::Generator>& generators,
                                     const OnToken& on_token) {
  bool going_on = true;
  while (going_on) {
    std::vector<size_t> some;
    for (size_t text = 0; text < counts.size(); ++text) {
      if (counts[text] > 0) some.push_back(text);
    }
    if (some.empty()) return;
    std::vector<EquilibriumCache> texts = split(cache_), chosen;
    int64_t rounds = counts[some.front()];
    for (const size_t text : some) {
      rounds = std::min(rounds, counts[text]);
      chosen.push_back(texts[text]);
    }
    EquilibriumCache cache = some.size() == texts.size() ? cache_ : join(chosen);
    for (int64_t round = 0; round < rounds && going_on; ++round) {
      std::vector<std::vector<int64_t>> fed;
      for (size_t i = 0; i < some.size(); ++i) {
        const at::Tensor next = cache.log_probabilities[int64_t(i)];
        fed.push_back({sample(next, options, generators[some[i]])});
        going_on = on_token(int64_t(some[i]), fed.back().front()) && going_on;
      }
      count(solve(cache, fed), int64_t(some.size()));
    }
    for (const size_t text : some) counts[text] -= rounds;
    if (some.size() == texts.size()) {
      cache_ = std::move(cache);
      continue;
    }
    chosen = split(cache);
    for (size_t i = 0; i < some.size(); ++i) texts[some[i]] = std::move(chosen[i]);
    cache_ = join(texts);
  }
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
