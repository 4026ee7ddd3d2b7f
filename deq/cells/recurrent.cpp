#include "deq/cells/recurrent.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <torch/types.h>

#include "deq/cells/dropout.h"

namespace deq {

using at::Tensor;

std::shared_ptr<Cell> Lstm::make(const CellPlace&) const {
  return std::make_shared<RecurrentCell>(*this, RecurrentCell::Kind::Lstm);
}
std::shared_ptr<Cell> Gru::make(const CellPlace&) const {
  return std::make_shared<RecurrentCell>(*this, RecurrentCell::Kind::Gru);
}

RecurrentCell::RecurrentCell(const Recurrent& options, Kind kind) : options_(options), kind_(kind) {
  validate(options, kind == Kind::Lstm ? "Lstm" : "Gru");
  const int64_t D = options.width, rows = (kind == Kind::Lstm ? 4 : 3) * D;
  for (const char* name : {"input_weight", "hidden_weight"})
    weights_.push_back(register_parameter(name, torch::zeros({rows, D})));
  for (const char* name : {"input_bias", "hidden_bias"})
    weights_.push_back(register_parameter(name, torch::zeros({rows})));
  initialise(0.02);
}

void RecurrentCell::initialise(double std) {
  c10::AutoGradMode no_tape(false);
  for (int i : {0, 1}) weights_[i].normal_(0, std);
  for (int i : {2, 3}) weights_[i].zero_();
}

void RecurrentCell::forget(History& history, const std::vector<int64_t>& rows, int64_t kept) const {
  if (kept == 0) history.z = emptied(history.z, rows);
}

struct RecurrentCell::Level {
  Kind kind;
  std::vector<Tensor> weights;
  Tensor mask;                     // (B, 1, D) or undefined
  std::vector<Tensor> start, end;  // h (1, B, D), for an LSTM also c; end: after the last call

  Tensor operator()(const Tensor& z) {
    Tensor y, h, c;
    if (kind == Kind::Lstm) {
      std::tie(y, h, c) =
          at::lstm(z, start, weights, true, 1, 0, c10::GradMode::is_enabled(), false, true);
      end = {h.detach(), c.detach()};
    } else {
      std::tie(y, h) =
          at::gru(z, start[0], weights, true, 1, 0, c10::GradMode::is_enabled(), false, true);
      end = {h.detach()};
    }
    return masked(y, mask);
  }
};

std::vector<Bound> RecurrentCell::bind_levels(const Tensor& x, const std::vector<History>& levels) {
  const int64_t B = x.size(0), D = options_.width, states = kind_ == Kind::Lstm ? 2 : 1;
  check_bound_shapes("RecurrentCell", x, D, states * D, levels);
  const Tensor mask = dropout_mask({B, 1, D}, options_.dropout, is_training(), x);
  std::vector<Bound> bound;
  for (const History& history : levels) {
    DEQ_CHECK(history.length() <= 1, "RecurrentCell: a history of {} states; expected one",
              history.length());
    const Tensor z = history.z.defined()
                         ? history.z
                         : at::zeros({B, 1, states * D}, x.options().requires_grad(false));
    auto level = std::make_shared<Level>(Level{kind_, weights_, mask, {}, {}});
    for (const Tensor& part : z.transpose(0, 1).chunk(states, 2))
      level->start.push_back(part.contiguous());
    level->end = level->start;
    Bound f;
    f.f = Map([level](const Tensor& z) { return (*level)(z); }, {});
    f.extend = [level](const Tensor&, int64_t length) {
      return length == 0 ? History{}
                         : History{at::cat(level->end, 2).transpose(0, 1).contiguous(), {}};
    };
    bound.push_back(std::move(f));
  }
  return bound;
}

}  // namespace deq
