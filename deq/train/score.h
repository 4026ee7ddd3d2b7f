// How well an equilibrium predicts the targets of a segment.
#pragma once

#include "deq/data/batch.h"
#include "deq/models/model.h"

namespace deq {

/// Losses of single targets, and how many there are.
struct Losses {
  at::Tensor nats;    ///< (B, T), -log p(target); 0 where the target is not scored
  int64_t count = 0;  ///< targets that are scored
};

/// z (B, T, D), targets (B, T), where -1 is not scored. As `Model::loss`, with its dropout
/// and its tape.
Losses losses_of(const Model& model, const at::Tensor& z, const at::Tensor& targets);

/// What a model answers at the places of a batch that hold its answers.
struct Answers {
  at::Tensor likeliest;  ///< (B, places) or (B, H, W) int64, the likeliest symbols
  at::Tensor right;  ///< of that shape, bool: it is the target, and its probability finite; true
                     ///< where no target is scored
};

/// z as the batch with its features behind; `batch.answer` is not 0.
Answers answers_of(const Model& model, const at::Tensor& z, const Batch& batch);

/// (B) bool: problems with scored places, all of them right. No tape.
at::Tensor right_problems(const Model& model, const at::Tensor& z, const Batch& batch);

/// Of the answers of a segment's sequences.
struct AnswerScore {
  double nats = 0;      ///< sum of the losses of their targets
  int64_t targets = 0;  ///< that are scored
  int64_t right = 0;    ///< of these, the likeliest token
  int64_t exact = 0;    ///< sequences where each of those is the likeliest token

  void add(const AnswerScore& other);
};

/// Their sum over the places of a batch's answers.
double nats_of_answers(const at::Tensor& nats, const Batch& batch);

/// `batch.answer` is not 0; z (B, T, D), losses as of `losses_of`. A position whose probabilities
/// are not finite is not exact.
AnswerScore score_answer(const Model& model, const at::Tensor& z, const Losses& losses,
                         const Batch& batch);

}  // namespace deq
