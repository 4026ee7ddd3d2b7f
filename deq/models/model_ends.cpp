// Which reader and which head a model has.
#include <ATen/ATen.h>

#include "deq/base/levels.h"
#include "deq/heads/given.h"
#include "deq/heads/symbols.h"
#include "deq/heads/words.h"
#include "deq/layers/condition.h"
#include "deq/models/model.h"

namespace deq {
namespace {

/// Of S symbols that are answered.
void check_blank(const CellOptions& cell, const Vocabularies& symbols, int64_t S) {
  DEQ_CHECK(symbols.inputs == S + 1,
            "cell = {}: {} symbols are read and {} answered; expected a blank and each that is "
            "answered",
            cell.name(), symbols.inputs, S);
}

/// Of a model whose states are its answers.
void check_condition(const ConditionCell& cell, const ModelOptions& options,
                     const Vocabularies& symbols) {
  const int64_t S = cell.state_width();
  DEQ_CHECK(options.ends.reading == Reading::Symbols && !options.ends.pool,
            "reading = {}, pool = {}: the state of cell {} is its answer; expected symbols, false",
            Names<Reading>::values[size_t(options.ends.reading)], options.ends.pool,
            options.cell.name());
  if (S == 1) {
    DEQ_CHECK(symbols.inputs == 2 && symbols.answers == 2,
              "cell = {}: {} symbols are read and {} answered; expected 2 and 2, bits",
              options.cell.name(), symbols.inputs, symbols.answers);
    return;
  }
  check_blank(options.cell, symbols, S);
}

std::unique_ptr<Head> make_head(const ConditionCell& cell) {
  if (cell.state_kind() == StateKind::Scores) return std::make_unique<ScoreHead>(cell.sharpness());
  return std::make_unique<ChanceHead>(cell.state_width());
}

}  // namespace

void Model::make_ends() {
  const Reading reading = options_.ends.reading;
  if (const auto* own = dynamic_cast<const ConditionCell*>(&cell())) {
    check_condition(*own, options_, symbols_);
    reader_ = register_module("reader", std::make_shared<GivenReader>(own->state_width()));
    head_ = make_head(*own);
    return;
  }
  DEQ_CHECK(cell().symbols() == 0 || reading == Reading::Symbols,
            "reading = {}: cell {} reads places and symbols; expected symbols",
            Names<Reading>::values[size_t(reading)], options_.cell.name());
  if (cell().symbols() > 0) return make_symbol_ends();
  if (reading == Reading::Symbols) return make_word_ends();
  if (reading == Reading::Series) return make_series_ends();
  return reading == Reading::Bits ? make_bit_ends() : make_value_ends();
}

/// Of values: one for each place, or a row of them.
void Model::make_value_ends() {
  reader_ = register_module(
      "reader", std::make_shared<ValueReader>(symbols_.inputs, row(), cell().input_width()));
  head_ = std::make_unique<ClassHead>(symbols_.answers, cell().output_width());
}

/// Of numbers, as many as are answered.
void Model::make_bit_ends() {
  int64_t bits = 0;
  while ((int64_t{1} << bits) < symbols_.answers) ++bits;
  DEQ_CHECK(int64_t{1} << bits == symbols_.answers && symbols_.inputs >= symbols_.answers,
            "reading = bits: {} symbols are read and {} answered; expected the numbers of some "
            "bits, and no fewer",
            symbols_.inputs, symbols_.answers);
  reader_ = register_module(
      "reader", std::make_shared<BitReader>(symbols_.inputs, bits, cell().input_width()));
  head_ = std::make_unique<BitHead>(bits, cell().output_width());
}

/// Of real values in columns.
void Model::make_series_ends() {
  const int64_t columns = symbols_.inputs - kMarks;
  DEQ_CHECK(columns >= 1 && symbols_.answers == symbols_.inputs,
            "reading = series: {} symbols are read and {} answered; expected {} marks and the "
            "columns, of both alike",
            symbols_.inputs, symbols_.answers, kMarks);
  DEQ_CHECK(!options_.ends.pool, "pool = true: each place of a series has values of its own");
  reader_ =
      register_module("reader", std::make_shared<SeriesReader>(columns, cell().input_width()));
  auto head = make_value_head(options_.ends.values, columns, cell().output_width());
  value_head_ = head.get();
  head_ = std::move(head);
}

/// Reader and head of vocabularies, which may share their tables.
void Model::make_word_ends() {
  DEQ_CHECK(symbols_.inputs == symbols_.answers || !options_.embedding.tie_weights,
            "embedding-tie-weights = true: {} symbols are read and {} answered; expected false",
            symbols_.inputs, symbols_.answers);
  const int64_t width = cell().input_width();
  embedding_ = register_module(
      "embedding", std::make_shared<AdaptiveEmbedding>(
                       Clusters(options_.embedding, symbols_.inputs, width), options_.embedding));
  reader_ = embedding_;
  head_ = std::make_unique<WordHead>(options_.embedding, options_.mixture, symbols_.answers,
                                     cell().output_width(), width, *embedding_);
}

/// Of a state for each place and symbol.
void Model::make_symbol_ends() {
  const int64_t S = cell().symbols();
  check_blank(options_.cell, symbols_, S);
  reader_ = register_module("reader", std::make_shared<SymbolReader>(S, cell().input_width() / S));
  head_ = std::make_unique<SymbolHead>(S, cell().output_width() / S);
}

}  // namespace deq
