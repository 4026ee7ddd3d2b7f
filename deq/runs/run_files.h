// What a run folder holds, by name: for the sources that write and read it.
#pragma once

#include <filesystem>

#include "deq/data/vocabulary.h"

namespace deq {

inline constexpr uint64_t kMaxText = uint64_t(1) << 30;  // config.toml
inline constexpr const char* kLast = "last.safetensors";
inline constexpr const char* kBest = "best.safetensors";
inline constexpr const char* kMetrics = "metrics.jsonl";
inline constexpr const char* kVocabulary = "vocab.txt";
inline constexpr const char* kAnswers = "answers.txt";

/// Of targets; the vocabulary itself where a run has but one. `own`: it has one of its own.
inline Vocabulary answers_in(const std::filesystem::path& folder, bool own) {
  const bool there = std::filesystem::exists(folder / kAnswers);
  DEQ_CHECK(there || !own, "'{}' is missing; expected the answers' vocabulary of the run",
            (folder / kAnswers).string());
  return Vocabulary::load(folder / (there ? kAnswers : kVocabulary));
}

}  // namespace deq
