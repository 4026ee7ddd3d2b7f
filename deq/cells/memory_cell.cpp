#include "deq/cells/memory_cell.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include "deq/cells/dropout.h"

namespace deq {

using at::Tensor;

namespace {

/// Parts of a state, (B, .) each, as one (B, 1, S).
Tensor joined(const std::vector<Tensor>& state) { return at::cat(state, 1).unsqueeze(1); }

std::vector<int64_t> widths(const std::vector<Tensor>& state) {
  std::vector<int64_t> widths;
  for (const Tensor& part : state) widths.push_back(part.size(1));
  return widths;
}

}  // namespace

/// f of one level: from the state that its history is, whenever it is called.
struct MemoryCell::Level {
  const MemoryCell& cell;
  std::vector<Tensor> start;
  Tensor mask;              // (B, 1, D) or undefined
  std::vector<Tensor> end;  // after the last call

  Tensor operator()(const Tensor& z) {
    const auto steps = cell.begin(start);
    std::vector<Tensor> out;
    for (const Tensor& input : z.unbind(1)) out.push_back(steps->step(input));
    end.clear();
    for (const Tensor& part : steps->state) end.push_back(part.detach());
    return masked(at::stack(out, 1), mask);
  }
};

std::vector<Bound> MemoryCell::bind_levels(const Tensor& x, const std::vector<History>& levels) {
  const std::vector<Tensor> first = first_state();
  const std::vector<int64_t> parts = widths(first);
  const int64_t B = x.size(0);
  check_bound_shapes(name_.c_str(), x, width_, joined(first).size(2), levels);
  const Tensor mask = dropout_mask({B, 1, width_}, dropout_, is_training(), x);
  std::vector<Bound> bound;
  for (const History& history : levels) {
    DEQ_CHECK(history.length() <= 1, "{}: a history of {} states; expected one", name_,
              history.length());
    std::vector<Tensor> start;
    if (history.z.defined()) {
      start = history.z.squeeze(1).split_with_sizes(parts, 1);
    } else {
      for (const Tensor& part : first) start.push_back(part.expand({B, part.size(1)}));
    }
    auto level = std::make_shared<Level>(Level{*this, start, mask, start});
    Bound f;
    f.f = Map([level](const Tensor& z) { return (*level)(z); }, {});
    f.extend = [level](const Tensor&, int64_t length) {
      return length == 0 ? History{} : History{joined(level->end), {}};
    };
    bound.push_back(std::move(f));
  }
  return bound;
}

void MemoryCell::forget(History& history, const std::vector<int64_t>& rows, int64_t kept) const {
  if (kept > 0 || !history.z.defined()) return;
  const Tensor first = joined(first_state()).squeeze(0);  // (1, S)
  history.z = history.z.clone();
  for (const int64_t row : rows) history.z[row].copy_(first);
}

std::vector<MemoryTrack> MemoryCell::look_at(const Tensor& z) const {
  DEQ_CHECK(z.dim() == 3 && z.size(0) == 1 && z.size(2) == width_,
            "{}: an input of shape [{}] to be looked at; expected (1, positions, {})", name_,
            fmt::join(z.sizes(), ", "), width_);
  c10::NoGradGuard no_tape;
  std::vector<MemoryTrack> tracks;
  for (const std::string& name : track_names()) tracks.push_back({name, {}});
  const auto steps = begin(first_state());
  for (const Tensor& input : z.unbind(1)) {
    steps->step(input);
    const std::vector<std::string> now = steps->where();
    for (size_t i = 0; i < tracks.size(); ++i) tracks[i].at.push_back(now[i]);
  }
  return tracks;
}

}  // namespace deq
