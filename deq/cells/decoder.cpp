#include "deq/cells/decoder.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>

namespace deq {

using at::Tensor;

bool Rounds::due(int64_t text) {
  constexpr int64_t kTokens = 16;
  if (++tokens_[size_t(text)] <= kTokens) return false;
  std::fill(tokens_.begin(), tokens_.end(), 0);
  return true;
}

namespace {

class RebindingDecoder : public Decoder {
 public:
  RebindingDecoder(Cell& cell, std::vector<History> pasts, int64_t length, InputOf input)
      : cell_(cell),
        pasts_(std::move(pasts)),
        bound_(pasts_.size()),
        length_(length),
        input_(std::move(input)) {}

  void enter(const std::vector<int64_t>& texts, const std::vector<int64_t>& tokens) override {
    c10::AutoGradMode no_tape(false);
    const Tensor x = input_(tokens);
    for (size_t i = 0; i < texts.size(); ++i) {
      const auto text = size_t(texts[i]);
      bound_[text].f = cell_.bind(x.narrow(0, int64_t(i), 1), pasts_[text]);
      bound_[text].series = bound_[text].f.f.series();
    }
  }

  Tensor evaluate(const Tensor& z, const std::vector<int64_t>& done) override {
    const Tensor f = at::empty_like(z, at::MemoryFormat::Contiguous);
    for (size_t text = 0; text < bound_.size(); ++text) {
      if (!done.empty() && done[text] > 0) continue;
      f[int64_t(text)].copy_(bound_[text].series(z.narrow(0, int64_t(text), 1), {0})[0]);
    }
    return f;
  }

  void advance(const std::vector<int64_t>& texts, const Tensor& z) override {
    c10::AutoGradMode no_tape(false);
    for (size_t i = 0; i < texts.size(); ++i) {
      const auto text = size_t(texts[i]);
      pasts_[text] = bound_[text].f.extend(z.narrow(0, int64_t(i), 1), length_);
    }
  }

  std::vector<History> pasts() override { return pasts_; }

 private:
  struct Own {
    Bound f;
    Map::Series series;
  };

  Cell& cell_;
  std::vector<History> pasts_;
  std::vector<Own> bound_;
  int64_t length_;
  InputOf input_;
};

}  // namespace

std::unique_ptr<Decoder> rebinding_decoder(Cell& cell, std::vector<History> pasts, int64_t length,
                                           InputOf input) {
  return std::make_unique<RebindingDecoder>(cell, std::move(pasts), length, std::move(input));
}

std::unique_ptr<Decoder> Cell::decode(const std::vector<History>& pasts, int64_t length,
                                      const InputOf& input) {
  return rebinding_decoder(*this, pasts, length, input);
}

}  // namespace deq
