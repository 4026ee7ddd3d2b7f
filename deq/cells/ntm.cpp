#include "deq/cells/ntm.h"

#include <ATen/ATen.h>

namespace deq {

using at::Tensor;

namespace {

constexpr double kEmpty = 1e-6;  // what the memory holds at first
constexpr double kTiny = 1e-16;  // added to lengths of vectors and to weights

std::shared_ptr<Linear> linear(int64_t in, int64_t out, bool with_bias) {
  return std::make_shared<Linear>(in, out, with_bias, false);
}

}  // namespace

std::shared_ptr<Cell> Ntm::make(const CellPlace&) const { return std::make_shared<NtmCell>(*this); }

NtmCell::NtmCell(const Ntm& options)
    : MemoryCell("NtmCell", options.width, options.dropout), options_(options) {
  validate(options, "Ntm");
  DEQ_CHECK(2 * options.shift < options.slots,
            "cell-shift = {}: the memory has {} slots; expected fewer than half of cell-slots",
            options.shift, options.slots);
  const int64_t D = options.width, M = options.slot_width, read = options.read_heads * M;
  input_ = register_module("input", linear(D + read, recurrent() ? 4 * D : D, true));
  if (recurrent()) hidden_ = register_module("hidden", linear(D, 4 * D, false));
  heads_ = register_module("heads", linear(D, heads() * (M + 2 * options.shift + 4), true));
  write_ = register_module("write", linear(D, options.write_heads * 2 * M, true));
  output_ = register_module("output", linear(D + read, D, true));
  initialise(0.02);
}

void NtmCell::initialise(double std) {
  for (const auto& part : {input_, heads_, write_, output_}) part->initialise(std);
  if (hidden_) hidden_->initialise(std);
}

/// The state: h (B, D), c (B, D) of an LSTM, reads (B, R M), weights (B, heads N), memory (B, N M);
/// heads that write stand first.
struct NtmCell::Run final : Steps {
  Run(const NtmCell& cell, std::vector<Tensor> from)
      : options(cell.options_), recurrent(cell.recurrent()), H(cell.heads()) {
    state = std::move(from);
    const auto take = [](const Linear& part) { return Part{part.weight(), part.bias()}; };
    input = take(*cell.input_);
    if (recurrent) hidden = cell.hidden_->weight();
    heads = take(*cell.heads_);
    write = take(*cell.write_);
    output = take(*cell.output_);
    const int64_t N = options.slots, S = 2 * options.shift + 1;
    // Slot i looks back at i - shift .. i + shift, round the memory's end: (N, S).
    const auto index = state[0].options().dtype(at::kLong);
    from_slots = (at::arange(N, index).unsqueeze(1) - at::arange(S, index).sub(options.shift))
                     .remainder(N)
                     .flatten();
  }

  Tensor step(const Tensor& x) override {
    const int64_t B = x.size(0), N = options.slots, M = options.slot_width, W = options.write_heads,
                  first = recurrent ? 2 : 1;
    const Tensor seen = at::cat({x, state[size_t(first)]}, 1);
    Tensor h, c;
    if (recurrent)
      std::tie(h, c) = at::lstm_cell(seen, {state[0], state[1]}, input.weight, hidden, input.bias,
                                     at::zeros_like(input.bias));
    else
      h = at::linear(seen, input.weight, input.bias).tanh();
    Tensor memory = state[size_t(first) + 2].view({B, N, M});
    // Heads that write move first, over what they found; then those that read.
    const Tensor asked = at::linear(h, heads.weight, heads.bias).view({B, H, -1});
    const Tensor before = state[size_t(first) + 1].view({B, H, N});
    const Tensor writing =
        moved(asked.narrow(1, 0, W), before.narrow(1, 0, W), memory);  // (B, W, N)
    const Tensor what = at::linear(h, write.weight, write.bias).view({B, W, 2 * M});
    const Tensor erase = what.narrow(2, 0, M).sigmoid(), add = what.narrow(2, M, M).tanh();
    for (int64_t head = 0; head < W; ++head) {
      const Tensor at = writing.select(1, head).unsqueeze(2);  // (B, N, 1)
      memory = memory * (1 - at * erase.select(1, head).unsqueeze(1)) +
               at * add.select(1, head).unsqueeze(1);
    }
    const Tensor reading = moved(asked.narrow(1, W, H - W), before.narrow(1, W, H - W), memory);
    const Tensor read = at::matmul(reading, memory).flatten(1);  // (B, R M)
    state = {h, read, at::cat({writing, reading}, 1).flatten(1), memory.flatten(1)};
    if (recurrent) state.insert(state.begin() + 1, c);
    return at::linear(at::cat({h, read}, 1), output.weight, output.bias);
  }

  /// Where heads go: asked (B, n, M + S + 3), before (B, n, N), memory (B, N, M).
  Tensor moved(const Tensor& asked, const Tensor& before, const Tensor& memory) const {
    const int64_t M = options.slot_width, S = 2 * options.shift + 1, N = options.slots;
    const Tensor key = asked.narrow(2, 0, M).tanh();
    const Tensor strength = at::softplus(asked.narrow(2, M, 1)),
                 gate = asked.narrow(2, M + 1, 1).sigmoid(),
                 sharpness = 1 + at::softplus(asked.narrow(2, M + 2, 1)),
                 shifts = asked.narrow(2, M + 3, S).softmax(2);
    const Tensor lengths = key.norm(2, {2}, true) * memory.norm(2, {2}).unsqueeze(1);
    const Tensor likeness = at::matmul(key, memory.transpose(1, 2)) / (lengths + kTiny);
    const Tensor by_content = (strength * likeness).softmax(2);  // (B, n, N)
    const Tensor mixed = gate * by_content + (1 - gate) * before;
    const Tensor shifted =
        at::matmul(mixed.index_select(2, from_slots).view({mixed.size(0), mixed.size(1), N, S}),
                   shifts.unsqueeze(3))
            .squeeze(3);
    const Tensor sharp = (shifted.clamp_min(0) + kTiny).pow(sharpness);
    return sharp / sharp.sum(2, true);
  }

  std::vector<std::string> where() const override {
    const Tensor slots =
        state[state.size() - 2].select(0, 0).view({H, options.slots}).argmax(1);  // (heads)
    std::vector<std::string> now;
    for (int64_t head = 0; head < H; ++head)
      now.push_back(std::to_string(slots[head].item<int64_t>()));
    return now;
  }

  struct Part {
    Tensor weight, bias;
  };
  const Ntm& options;
  bool recurrent;
  int64_t H;
  Part input, heads, write, output;
  Tensor hidden;
  Tensor from_slots;  // (N S)
};

std::unique_ptr<MemoryCell::Steps> NtmCell::begin(std::vector<Tensor> state) const {
  return std::make_unique<Run>(*this, std::move(state));
}

std::vector<Tensor> NtmCell::first_state() const {
  const auto like = output_->bias().options().requires_grad(false);
  const int64_t D = options_.width, M = options_.slot_width, N = options_.slots;
  const Tensor at_first = at::zeros({heads(), N}, like);
  at_first.select(1, 0).fill_(1);
  std::vector<Tensor> state{at::zeros({1, D}, like)};
  if (recurrent()) state.push_back(at::zeros({1, D}, like));
  state.push_back(at::zeros({1, options_.read_heads * M}, like));
  state.push_back(at_first.view({1, -1}));
  state.push_back(at::full({1, N * M}, kEmpty, like));
  return state;
}

std::vector<std::string> NtmCell::track_names() const {
  std::vector<std::string> names;
  const auto add = [&](const char* what, int64_t count) {
    for (int64_t i = 1; i <= count; ++i)
      names.push_back(count == 1 ? what : fmt::format("{} {}", what, i));
  };
  add("write", options_.write_heads);
  add("read", options_.read_heads);
  return names;
}

}  // namespace deq
