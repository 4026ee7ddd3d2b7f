#include "deq/decode/batch.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cstring>

#include "deq/base/threads.h"

namespace deq {

using at::Tensor;

namespace {

std::vector<History> pasts_of(const EquilibriumCache& cache) {
  std::vector<History> pasts;
  for (const EquilibriumCache& text : split(cache)) pasts.push_back(text.histories.front());
  return pasts;
}

}  // namespace

TextGenerator::Batch::Batch(TextGenerator& texts, std::vector<int64_t> counts,
                            const SamplingOptions& options, std::vector<at::Generator>& generators,
                            const OnToken& on_token)
    : of_(texts),
      left_(std::move(counts)),
      options_(options),
      generators_(generators),
      on_token_(on_token),
      log_probabilities_(texts.cache_.log_probabilities.clone(at::MemoryFormat::Contiguous)),
      zero_(at::zeros({1, texts.model_.cell().state_width()}, log_probabilities_.options())),
      decoder_(texts.model_.cell().decode(
          pasts_of(texts.cache_), texts.how_.history,
          [&model = texts.model_](const std::vector<int64_t>& tokens) {
            return model.embedding().forward(at::tensor(tokens, at::kLong).unsqueeze(1));
          })),
      solve_([this](const Tensor& z,
                    const std::vector<int64_t>& done) { return decoder_->evaluate(z, done); },
             zero_.expand({texts.texts_, -1}), texts.how_.equilibrium.solver,
             texts.how_.equilibrium.stop) {}

void TextGenerator::Batch::run() {
  c10::NoGradGuard no_tape;
  const FreeThreads threads;
  std::vector<int64_t> all;
  for (int64_t text = 0; text < of_.texts_; ++text) all.push_back(text);
  draw(all);
  while (solve_.in_use()) take(solve_.step());
  of_.cache_.log_probabilities = log_probabilities_;
  std::vector<EquilibriumCache> texts;
  for (History& past : decoder_->pasts()) texts.push_back({{std::move(past)}, {}});
  of_.cache_.histories = join(texts).histories;
}

/// Draws the next token of those texts that lack one, and gives it to them.
void TextGenerator::Batch::draw(const std::vector<int64_t>& texts) {
  std::vector<int64_t> drawn, tokens;
  for (const int64_t text : texts) {
    if (!going_on_ || left_[size_t(text)] == 0) continue;
    --left_[size_t(text)];
    drawn.push_back(text);
    tokens.push_back(sample(log_probabilities_[text], options_, generators_[size_t(text)]));
    going_on_ = on_token_(text, tokens.back());
  }
  if (drawn.empty()) return;
  decoder_->enter(drawn, tokens);
  for (const int64_t text : drawn) solve_.begin(text, zero_);
}

void TextGenerator::Batch::take(const RollingSolve::Round& round) {
  if (round.ended.empty()) return;
  std::vector<int64_t> texts;
  for (const RollingSolve::Ended& ended : round.ended) {
    texts.push_back(ended.row);
    ++of_.report_.tokens;
    of_.report_.evaluations += ended.evaluations;
    of_.report_.converged += ended.reason == Reason::Converged;
    of_.saw(ended.residual);
  }
  const Tensor z = round.states.unsqueeze(1);  // (n, 1, D)
  decoder_->advance(texts, z);
  const Tensor next = of_.model_.log_probabilities(z);
  for (size_t i = 0; i < texts.size(); ++i) log_probabilities_[texts[i]].copy_(next[int64_t(i)][0]);
  draw(texts);
}

}  // namespace deq
