// The list of tasks: a new one is its own file and one line here.
#pragma once

#include <variant>

#include "deq/data/bytes.h"
#include "deq/data/characters.h"
#include "deq/data/copy_memory.h"
#include "deq/data/words.h"

namespace deq {

using Task = std::variant<Words, Bytes, Characters, CopyMemory>;

inline const char* task_name(const Task& task) {
  return std::visit([](const auto& selected) { return selected.name; }, task);
}
inline Unit unit_of(const Task& task) {
  return std::visit([](const auto& selected) { return selected.unit; }, task);
}
inline const char* unit_name(const Task& task) { return unit_name(unit_of(task)); }
inline const char* metric_name(const Task& task) { return metric_name(unit_of(task)); }
inline double metric_value(const Task& task, double mean_nats) {
  return metric_value(unit_of(task), mean_nats);
}
/// Whether a target is the token one position later, as a generator needs; tasks of symbols answer
/// whole sequences instead.
inline bool continues_text(const Task& task) { return unit_of(task) != Unit::Symbol; }
/// `data` is empty for a task that makes its own sequences.
inline Corpus load(const Task& task, const std::filesystem::path& data) {
  return std::visit([&](const auto& selected) { return selected.load(data); }, task);
}
/// In a run's vocabulary, for evaluating.
inline Corpus load(const Task& task, const std::filesystem::path& data,
                   const Vocabulary& vocabulary) {
  return std::visit([&](const auto& selected) { return selected.load(data, vocabulary); }, task);
}

}  // namespace deq
