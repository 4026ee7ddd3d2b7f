// A task is any options struct that loads a corpus; those with names are listed in tasks.cpp. To
// add one: its file, and its line there.
#pragma once

#include "deq/base/choice.h"
#include "deq/data/corpus.h"
#include "deq/tasks/written.h"

namespace deq {

/// What a task's options can do.
struct TaskData : Held<TaskData> {
  template <class Options>
  struct Of;
  static const std::vector<Choice<TaskData>>& known();

  virtual Unit unit() const = 0;
  /// `data` is empty for a task that makes its own sequences.
  virtual Corpus load(const std::filesystem::path& data) const = 0;
  /// In a run's vocabularies, of inputs and of answers, for evaluating.
  virtual Corpus load(const std::filesystem::path& data, const Vocabulary& vocabulary,
                      const Vocabulary& answers) const = 0;
  /// Tokens of the vocabulary as far as the options tell without data; 0: they do not.
  virtual int64_t known_vocabulary() const = 0;
  /// Of the places of a problem or a text: 1, a sequence; 2, a grid.
  virtual int64_t dimensions() const = 0;
  /// What a symbol stands for, as a model's option `reading` has it: "symbols" unless the task's
  /// own `reading` says otherwise.
  virtual std::string reading() const = 0;
  /// Of inputs and of answers, where the options tell without data, by the task's `vocabularies`.
  virtual std::optional<std::pair<Vocabulary, Vocabulary>> vocabularies() const = 0;
  /// Whether answers have a vocabulary of their own, whatever its size.
  virtual bool own_answers() const = 0;

  /// Problems as a user has them, by the task's `read_text`, or else by `read_problems`. Throws
  /// deq::Error, with source and line, for what is none, or has no answer.
  virtual std::vector<WrittenProblem> read(const std::string& text, const std::string& source,
                                           const Vocabulary& inputs) const = 0;
  /// By the task's `show`, or else symbols and rows as `write_symbols` joins them. What is shown of
  /// a problem alone `read` reads.
  virtual std::string show(const Shown& shown) const = 0;
  /// What is wrong with an answer by a check of its own, without a model; empty: nothing. Nothing
  /// at all where the task has no `check`.
  virtual std::optional<std::string> check(const at::Tensor& problem,
                                           const at::Tensor& answer) const = 0;
};

/// One of the tasks; Words unless told otherwise.
using Task = Choice<TaskData>;

template <class Options>
struct TaskData::Of final : HeldAs<TaskData, Options> {
  using HeldAs<TaskData, Options>::HeldAs;
  Unit unit() const override { return Options::unit; }
  Corpus load(const std::filesystem::path& data) const override { return this->value.load(data); }
  Corpus load(const std::filesystem::path& data, const Vocabulary& vocabulary,
              const Vocabulary& answers) const override {
    if constexpr (requires { this->value.load(data, vocabulary, answers); })
      return this->value.load(data, vocabulary, answers);
    else
      return this->value.load(data, vocabulary);
  }
  int64_t known_vocabulary() const override { return this->value.known_vocabulary(); }
  int64_t dimensions() const override {
    if constexpr (requires { this->value.dimensions(); })
      return this->value.dimensions();
    else if constexpr (requires { this->value.dimensions; })
      return this->value.dimensions;
    return 1;
  }
  std::string reading() const override {
    if constexpr (requires { this->value.reading(); }) return this->value.reading();
    return "symbols";
  }
  std::optional<std::pair<Vocabulary, Vocabulary>> vocabularies() const override {
    if constexpr (requires { this->value.vocabularies(); }) return this->value.vocabularies();
    return std::nullopt;
  }
  bool own_answers() const override {
    return requires { this->value.load({}, Vocabulary(), Vocabulary()); };
  }
  std::vector<WrittenProblem> read(const std::string& text, const std::string& source,
                                   const Vocabulary& inputs) const override {
    if constexpr (requires { this->value.read_text(text, source, inputs); })
      return this->value.read_text(text, source, inputs);
    else
      return read_problems(text, source, inputs, dimensions());
  }
  std::string show(const Shown& shown) const override {
    if constexpr (requires { this->value.show(shown); }) return this->value.show(shown);
    const bool own = shown.answer.defined();
    return write_symbols(own ? shown.answer : shown.problem, own ? shown.answers : shown.inputs,
                         {.rows = shown.picture ? "\n" : " / "});
  }
  std::optional<std::string> check(const at::Tensor& problem,
                                   const at::Tensor& answer) const override {
    if constexpr (requires { this->value.check(problem, answer); })
      return this->value.check(problem, answer);
    return std::nullopt;
  }
};

inline const char* task_name(const Task& task) { return task.name(); }
inline Unit unit_of(const Task& task) { return task->unit(); }
inline const char* unit_name(const Task& task) { return unit_name(unit_of(task)); }
inline const char* metric_name(const Task& task) { return metric_name(unit_of(task)); }
inline double metric_value(const Task& task, double mean_nats) {
  return metric_value(unit_of(task), mean_nats);
}
/// Whether a target is the token one position later, as a generator needs; tasks of symbols and
/// of values answer whole sequences instead.
inline bool continues_text(const Task& task) { return makes_text(unit_of(task)); }
inline Corpus load(const Task& task, const std::filesystem::path& data) { return task->load(data); }
inline Corpus load(const Task& task, const std::filesystem::path& data,
                   const Vocabulary& vocabulary, const Vocabulary& answers) {
  return task->load(data, vocabulary, answers);
}
inline Corpus load(const Task& task, const std::filesystem::path& data,
                   const Vocabulary& vocabulary) {
  return task->load(data, vocabulary, vocabulary);
}

}  // namespace deq
