#include "deq/models/model.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "deq/base/levels.h"
#include "deq/cells/dropout.h"
#include "deq/halting/unit.h"

namespace deq {

using at::Tensor;

namespace {

/// The ids, checked where they are (of those on the CPU a GPU need not be asked), on `device`.
Tensor checked_ids(const char* what, const Tensor& ids, int64_t lowest, int64_t vocabulary,
                   c10::Device device) {
  DEQ_CHECK((ids.dim() == 2 || ids.dim() == 3) && ids.scalar_type() == at::kLong,
            "model: {}s of shape [{}], {}; expected (batch, positions) or (batch, rows, columns), "
            "Long",
            what, fmt::join(ids.sizes(), ", "), c10::toString(ids.scalar_type()));
  if (ids.numel() == 0) return ids.to(device);
  const int64_t low = ids.min().item<int64_t>(), high = ids.max().item<int64_t>();
  DEQ_CHECK(low >= lowest && high < vocabulary, "model: {} {}; expected {} to {}", what,
            low < lowest ? low : high, lowest, vocabulary - 1);
  return ids.to(device);
}

/// (B, T), the places of a grid one after the other.
Tensor in_a_row(const Tensor& ids) { return ids.dim() == 2 ? ids : ids.flatten(1); }

/// (B, T, W) as the places of `ids` stand: (B, H, W, .) of a grid.
Tensor as_placed(const Tensor& features, const Tensor& ids) {
  if (ids.dim() == 2) return features;
  return features.view({ids.size(0), ids.size(1), ids.size(2), features.size(2)});
}

void check_tied(const Halting& rule, const DepthOptions& depth) {
  DEQ_CHECK(!rule->halts() || depth.depth == 0 || depth.tied,
            "halting = {} with tied = false: its levels are different steps, and there is no other "
            "one to go on with; expected tied = true, or depth = 0",
            rule.name());
}

}  // namespace

Model::Model(const ModelOptions& options, const Vocabularies& symbols)
    : options_(options), symbols_(symbols), halting_(options.halting) {
  validate(options, "Model");
  for (const int64_t count : {symbols.inputs, symbols.answers})
    DEQ_CHECK(count >= 2, "model: vocabulary of {} tokens; expected >= 2", count);
  layer_ = make_layer(options.cell, options.depth, symbols.answers);
  for (size_t i = 0; i < layer_->cells().size(); ++i)
    register_module(layer_->cell_name(i), layer_->cells()[i]);
  at::Tensor steps = layer_->step_embedding();
  if (steps.defined()) register_parameter("step_embedding", steps);
  make_ends();
  for (const auto& [name, part] : head_->parts()) register_module(name, part);
  for (const auto& cell : layer_->cells()) cell->initialise(options.initial.init_std);
  if (steps.defined()) {
    c10::AutoGradMode no_tape(false);
    steps.normal_(0, options.initial.init_std);
  }
  reader_->initialise(options.initial.embedding_init_std);
  head_->initialise(options.initial.embedding_init_std);
  make_halting();
}

/// Behind all else, so that the other weights are drawn as without it.
void Model::make_halting() {
  const Halting& rule = options_.halting;
  check_tied(rule, options_.depth);
  if (!rule->learned()) return;
  const int64_t symbols = std::max<int64_t>(1, cell().symbols());
  unit_ = register_module(
      "halting", std::make_shared<HaltingUnit>(cell().output_width() / symbols, rule->least()));
  unit_->initialise(options_.initial.init_std, rule->bias());
}

void Model::halt_by(const Halting& halting) {
  const Halting& own = options_.halting;
  DEQ_CHECK(!halting->learned() || halting.name() == std::string(own.name()),
            "halting = {}: the model was trained with {} and has no weights for it; expected {}, "
            "residual, change or none",
            halting.name(), own.name(), own->learned() ? own.name() : "none");
  check_tied(halting, options_.depth);
  halting_ = halting;
}

Tensor Model::halting_logits(const Tensor& z) const {
  DEQ_CHECK(unit_, "halting = {}: the model has no halting unit", options_.halting.name());
  const Tensor out = cell().output(z);  // (B, ..., O)
  const int64_t symbols = std::max<int64_t>(1, cell().symbols());
  return unit_->forward(out.reshape({out.size(0), -1, out.size(-1) / symbols}));
}

Readout Model::readout() const {
  Readout readout;
  readout.log_probabilities = [this](const Tensor& z) { return log_probabilities(z); };
  if (unit_) readout.logits = [this](const Tensor& z) { return halting_logits(z); };
  return readout;
}

/// Whether a grid's row is one place of a sequence.
bool Model::reads_rows() const {
  return options_.ends.reading == Reading::Rows || options_.ends.reading == Reading::Series;
}

/// Symbols of one place.
int64_t Model::row() const {
  if (options_.ends.reading == Reading::Series) return symbols_.inputs - kMarks;
  return options_.ends.reading == Reading::Rows ? options_.ends.row : 1;
}

/// Below what ids are.
int64_t Model::ids(int64_t symbols) const {
  return options_.ends.reading == Reading::Series ? kLevels : symbols;
}

AdaptiveEmbedding& Model::embedding() {
  DEQ_CHECK(embedding_, "cell = {}, reading = {}: there is no embedding; expected a model with one",
            options_.cell.name(), Names<Reading>::values[size_t(options_.ends.reading)]);
  return *embedding_;
}

std::shared_ptr<Model> Model::another() const {
  return std::make_shared<Model>(options_, symbols_);
}

std::shared_ptr<Model> Model::clone() const {
  c10::AutoGradMode no_tape(false);
  at::Generator random = at::globalContext().defaultGenerator(at::kCPU);
  const Tensor state = random.get_state();  // of the weights that are written over
  const auto copy = another();
  random.set_state(state);
  const auto take = [](const auto& items, const auto& into) {
    for (const auto& item : items) {
      Tensor tensor = *into.find(item.key());
      tensor.set_data(item.value().detach().clone());
      tensor.set_requires_grad(item.value().requires_grad());
    }
  };
  take(named_parameters(), copy->named_parameters());
  take(named_buffers(), copy->named_buffers());
  copy->train(is_training());
  const auto parts = modules(/*include_self=*/false), copied = copy->modules(false);
  for (size_t i = 0; i < parts.size(); ++i) copied[i]->train(parts[i]->is_training());
  if (embedding_) copy->embedding_->hold_row(embedding_->held_row());
  copy->read_weights({weight_type_});
  copy->halting_ = halting_;
  return copy;
}

std::shared_ptr<torch::nn::Module> Model::clone(const c10::optional<at::Device>& device) const {
  const auto copy = clone();
  if (device) copy->to(*device);
  return copy;
}

void Model::read_weights(const ReadingOptions& options) {
  for (const auto& cell : layer_->cells())
    DEQ_CHECK(cell->read_weights(options.weight_type),
              "weight-type = bfloat16: cell '{}' reads its weights as they are; expected exact",
              options_.cell.name());
  weight_type_ = options.weight_type;
}

Tensor Model::read(const Tensor& tokens) {
  const Tensor own = checked_ids("token", tokens, 0, ids(symbols_.inputs), device());
  const bool rows = reads_rows();
  DEQ_CHECK(!rows || (own.dim() == 3 && own.size(2) == row()),
            "tokens of shape [{}]; expected grids of rows of {}, as the model reads them",
            fmt::join(own.sizes(), ", "), row());
  const Tensor seen = reader_->forward(in_a_row(own));
  const Tensor x = masked(seen, dropout_mask({seen.size(0), 1, seen.size(2)},
                                             options_.input_dropout, is_training(), seen));
  return rows ? x : as_placed(x, own);
}

std::vector<Bound> Model::bind(const Tensor& tokens, const Histories& histories) {
  return layer_->bind(read(tokens), histories);
}

LayerOutput Model::forward(const Tensor& tokens, const Histories& histories,
                           const ForwardOptions& options) {
  return layer_->forward(read(tokens), histories, options);
}

/// What the head sees of states (B, T, D): (B, T, O), or (B, 1, O) where they are pooled.
Tensor Model::hidden(const Tensor& z) const {
  const Tensor out = cell().output(z);
  const Tensor each = out.dim() > 3 ? out.flatten(1, out.dim() - 2) : out;
  const Tensor hidden = options_.ends.pool ? each.mean(1, true) : each;
  return masked(hidden, dropout_mask({z.size(0), 1, hidden.size(2)}, options_.output_dropout,
                                     is_training(), hidden));
}

Tensor Model::loss(const Tensor& z, const Tensor& expected) const {
  const Tensor targets = checked_ids("target", expected, -1, ids(symbols_.answers), z.device());
  if (answers_values())
    return head_->loss(hidden(z), targets.clamp_min(kMissing)).masked_fill(targets < 0, 0);
  if (options_.ends.pool || row() > 1) return shared_loss(hidden(z), targets);
  return head_->loss(hidden(z), in_a_row(targets.clamp_min(0)))
      .view(targets.sizes())
      .masked_fill(targets < 0, 0);
}

/// Where one hidden state (B, n, O) answers for several places: of those that are scored alone.
Tensor Model::shared_loss(const Tensor& hidden, const Tensor& targets) const {
  const Tensor all = targets.reshape({-1});
  const int64_t B = hidden.size(0), n = hidden.size(1), each = all.numel() / (B * n);
  DEQ_CHECK(each * B * n == all.numel(), "targets of shape [{}] for {} states a problem",
            fmt::join(targets.sizes(), ", "), n);
  const Tensor scored = all.ge(0).nonzero().squeeze(1);
  const Tensor states = hidden.flatten(0, 1).index_select(0, at::div(scored, each, "floor"));
  const Tensor losses =
      head_->loss(states.unsqueeze(0), all.index_select(0, scored).unsqueeze(0)).squeeze(0);
  return at::zeros(all.sizes(), losses.options())
      .index_copy(0, scored, losses)
      .view(targets.sizes());
}

Tensor Model::log_probabilities(const Tensor& z) const {
  const Tensor all = head_->log_probabilities(hidden(z));  // (B, T, answers)
  std::vector<int64_t> shape = z.sizes().vec();
  shape.back() = symbols_.answers;
  if (options_.ends.reading == Reading::Rows) {
    shape.insert(shape.end() - 1, row());
    return all.unsqueeze(2).expand(shape);
  }
  if (options_.ends.pool && z.dim() == 4) return all.unsqueeze(1).expand(shape);
  return options_.ends.pool ? all.expand(shape) : all.view(shape);
}

Tensor Model::values(const Tensor& z) const {
  DEQ_CHECK(answers_values(), "reading = {}: symbols are answered; expected series for values",
            Names<Reading>::values[size_t(options_.ends.reading)]);
  return value_head_->values(hidden(z));
}

std::vector<int64_t> Model::state_shape(const Tensor& tokens) const {
  std::vector<int64_t> shape = tokens.sizes().vec();
  if (reads_rows()) shape.pop_back();
  shape.push_back(layer_->cell().state_width());
  return shape;
}

std::vector<int64_t> Model::percents() const {
  return answers_values() ? value_head_->percents() : std::vector<int64_t>{};
}

int64_t Model::parameter_count(bool with_embedding) const {
  int64_t count = 0;
  for (const auto& item : named_parameters()) {
    const bool embedding =
        item.key().rfind("embedding.", 0) == 0 || item.key().rfind("softmax.", 0) == 0;
    if (with_embedding || !embedding) count += item.value().numel();
  }
  return count;
}

}  // namespace deq
