#include "deq/cells/stack_rnn.h"

#include <ATen/ATen.h>

namespace deq {

using at::Tensor;

namespace {

constexpr const char* kActions[] = {"push", "pop", "keep"};

std::shared_ptr<Linear> linear(int64_t in, int64_t out, bool with_bias) {
  return std::make_shared<Linear>(in, out, with_bias, false);
}

}  // namespace

std::shared_ptr<Cell> StackRnn::make(const CellPlace&) const {
  return std::make_shared<StackRnnCell>(*this);
}

StackRnnCell::StackRnnCell(const StackRnn& options)
    : MemoryCell("StackRnnCell", options.width, options.dropout), options_(options) {
  validate(options, "StackRnn");
  DEQ_CHECK(options.reads <= options.stack_depth,
            "cell-reads = {}: a stack has {} entries; expected at most cell-stack-depth",
            options.reads, options.stack_depth);
  const int64_t D = options.width, K = options.stacks, w = options.stack_width;
  input_ = register_module("input", linear(D, D, true));
  hidden_ = register_module("hidden", linear(D, D, false));
  read_ = register_module("read", linear(K * options.reads * w, D, false));
  action_ = register_module("action", linear(D, 3 * K, true));
  push_ = register_module("push", linear(D, K * w, true));
  initialise(0.02);
}

void StackRnnCell::initialise(double std) {
  for (const auto& part : {input_, hidden_, read_, action_, push_}) part->initialise(std);
}

struct StackRnnCell::Run final : Steps {
  Run(const StackRnnCell& cell, std::vector<Tensor> from) : options(cell.options_) {
    state = std::move(from);  // h (B, D), stacks (B, K N w)
    for (const auto& part : {cell.input_, cell.hidden_, cell.read_, cell.action_, cell.push_}) {
      weights.push_back(part->weight());
      biases.push_back(part->bias());
    }
    shape = {state[0].size(0), options.stacks, options.stack_depth, options.stack_width};
    nothing = at::zeros({shape[0], options.stacks, 1, options.stack_width}, state[0].options());
  }

  Tensor step(const Tensor& input) override {
    const Tensor stack = state[1].view(shape);  // (B, K, N, w), the top first
    const int64_t N = options.stack_depth;
    const Tensor top = stack.narrow(2, 0, options.reads).flatten(1);
    const Tensor h = at::linear(input, weights[0], biases[0])
                         .add(at::linear(state[0], weights[1]))
                         .add(at::linear(top, weights[2]))
                         .tanh();
    action =
        at::linear(h, weights[3], biases[3]).view({shape[0], options.stacks, 3, 1, 1}).softmax(2);
    const Tensor pushed = at::linear(h, weights[4], biases[4]).tanh().view(nothing.sizes());
    const Tensor deeper = at::cat({pushed, stack.narrow(2, 0, N - 1)}, 2),
                 higher = at::cat({stack.narrow(2, 1, N - 1), nothing}, 2);
    const Tensor next =
        action.select(2, 0) * deeper + action.select(2, 1) * higher + action.select(2, 2) * stack;
    state = {h, next.flatten(1)};
    return h;
  }

  std::vector<std::string> where() const override {
    std::vector<std::string> now;
    const Tensor likeliest = action[0].flatten(1).argmax(1);  // (K)
    for (int64_t k = 0; k < options.stacks; ++k)
      now.emplace_back(kActions[likeliest[k].item<int64_t>()]);
    return now;
  }

  const StackRnn& options;
  std::vector<Tensor> weights, biases;
  std::vector<int64_t> shape;
  Tensor nothing;  // (B, K, 1, w)
  Tensor action;   // (B, K, 3, 1, 1), of the last step
};

std::unique_ptr<MemoryCell::Steps> StackRnnCell::begin(std::vector<Tensor> state) const {
  return std::make_unique<Run>(*this, std::move(state));
}

std::vector<Tensor> StackRnnCell::first_state() const {
  const auto like = input_->weight().options().requires_grad(false);
  return {at::zeros({1, options_.width}, like),
          at::zeros({1, options_.stacks * options_.stack_depth * options_.stack_width}, like)};
}

std::vector<std::string> StackRnnCell::track_names() const {
  std::vector<std::string> names;
  for (int64_t k = 1; k <= options_.stacks; ++k)
    names.push_back(options_.stacks == 1 ? "stack" : fmt::format("stack {}", k));
  return names;
}

}  // namespace deq
