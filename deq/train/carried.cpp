#include "deq/train/carried.h"

#include <ATen/ATen.h>

namespace deq {

using at::Tensor;

void Carried::take(int64_t row, TrainingReader& reader) {
  if (!pending_.tokens.defined() || taken_ == pending_.tokens.size(0)) {
    pending_ = reader.next();
    taken_ = 0;
    DEQ_CHECK(pending_.tokens.sizes().slice(1) == batch_.tokens.sizes().slice(1),
              "carry: problems of shapes [{}] and [{}]; expected one extent",
              fmt::join(batch_.tokens.sizes().slice(1), ", "),
              fmt::join(pending_.tokens.sizes().slice(1), ", "));
  }
  batch_.tokens[row].copy_(pending_.tokens[taken_]);
  batch_.targets[row].copy_(pending_.targets[taken_]);
  ++taken_;
}

Carried::Step Carried::next(TrainingReader& reader, const StartOptions& start,
                            const std::function<std::vector<int64_t>(const Tensor&)>& state_shape,
                            c10::Device device) {
  const bool first = !batch_.tokens.defined();
  if (first) batch_ = reader.next();
  const int64_t B = batch_.tokens.size(0);
  const std::vector<int64_t> shape = state_shape(batch_.tokens);
  const Tensor fresh =
      make_start(start, at::empty(shape, at::device(device).dtype(at::kFloat)), shape.back());
  if (first) {
    z_ = fresh;
    age_.assign(size_t(B), 0);
    for (int64_t row = 0; row < B; ++row)
      limit_.push_back(at::randint(2, most_ + 1, {1}, at::kLong).item<int64_t>());
  }
  for (int64_t row = 0; row < B && !first; ++row) {
    if (age_[size_t(row)] < limit_[size_t(row)]) continue;
    take(row, reader);
    if (over_ == 0 || at::rand({1}, at::kDouble).item<double>() >= over_) z_[row].copy_(fresh[row]);
    age_[size_t(row)] = 0;
    limit_[size_t(row)] = at::randint(2, most_ + 1, {1}, at::kLong).item<int64_t>();
  }
  Batch scored = batch_;
  if (grace_ > 0) {
    scored.targets = batch_.targets.clone();
    for (int64_t row = 0; row < B; ++row) {
      if (age_[size_t(row)] < grace_) scored.targets[row].fill_(-1);
    }
  }
  return {scored, z_};
}

void Carried::keep(const Tensor& z, const Tensor& right) {
  z_ = z.detach().clone();
  for (int64_t& age : age_) ++age;
  if (right_ == 0) return;
  const Tensor goes = right.cpu().logical_and(at::rand({z.size(0)}, at::kDouble) * right_ < 1);
  for (size_t row = 0; row < age_.size(); ++row) {
    if (goes[int64_t(row)].item<bool>()) limit_[row] = age_[row];
  }
}

void Carried::clear() {
  batch_ = pending_ = {};
  z_ = Tensor();
  age_.clear();
  limit_.clear();
  taken_ = 0;
}

NamedTensors Carried::state() const {
  if (!batch_.tokens.defined()) return {};
  NamedTensors state{{"tokens", batch_.tokens},
                     {"targets", batch_.targets},
                     {"answer", at::scalar_tensor(batch_.answer, at::kLong)},
                     {"z", z_},
                     {"age", at::tensor(age_, at::kLong)},
                     {"limit", at::tensor(limit_, at::kLong)}};
  if (pending_.tokens.defined()) {
    state["pending.tokens"] = pending_.tokens;
    state["pending.targets"] = pending_.targets;
    state["taken"] = at::scalar_tensor(taken_, at::kLong);
  }
  return state;
}

void Carried::restore(const NamedTensors& state, c10::Device device) {
  clear();
  if (state.empty()) return;
  const auto part = [&](const char* name) {
    const auto found = state.find(name);
    DEQ_CHECK(found != state.end(), "checkpoint: 'carried.{}' is missing", name);
    return found->second;
  };
  const auto numbers = [&](const char* name) {
    const Tensor held = part(name).contiguous();
    return std::vector<int64_t>(held.data_ptr<int64_t>(), held.data_ptr<int64_t>() + held.numel());
  };
  batch_ = {.tokens = part("tokens").clone(),
            .targets = part("targets").clone(),
            .reset = true,
            .answer = state.count("answer") ? part("answer").item<int64_t>() : kEveryPosition};
  z_ = part("z").to(device);
  age_ = numbers("age");
  limit_ = numbers("limit");
  if (!state.count("taken")) return;
  pending_ = {.tokens = part("pending.tokens"), .targets = part("pending.targets")};
  taken_ = numbers("taken").at(0);
}

}  // namespace deq
