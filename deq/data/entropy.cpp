#include "deq/data/entropy.h"

#include "deq/base/error.h"

namespace deq {

double unigram_bits(const at::Tensor& train, const at::Tensor& split, int64_t size) {
  const auto counts = [&](const at::Tensor& ids, const char* name) {
    DEQ_CHECK(ids.numel() > 0, "the {} split is empty", name);
    at::Tensor found = at::bincount(ids, {}, size);
    DEQ_CHECK(found.size(0) == size, "the {} split has token id {}; expected ids below {}", name,
              found.size(0) - 1, size);
    return found.to(at::kDouble);  // (size,)
  };
  const at::Tensor trained = counts(train, "training");
  const at::Tensor bits = -((trained + 1) / double(train.numel() + size)).log2();
  return (counts(split, "evaluated") * bits).sum().item<double>() / double(split.numel());
}

double positional_nats(const Split& train, const Split& split, int64_t size) {
  DEQ_CHECK(
      train.sequences() && split.sequences() && train.targets.size(1) == split.targets.size(1),
      "the splits are not sequences of one length");
  const int64_t positions = split.targets.size(1);
  const auto counts = [&](const at::Tensor& targets) {
    const at::Tensor cells = at::arange(positions, at::kLong) * size + targets;  // (S, L)
    const at::Tensor found = at::bincount(cells.masked_select(targets.ge(0)), {}, positions * size);
    return found.view({positions, size}).to(at::kDouble);
  };
  const at::Tensor trained = counts(train.targets), seen = counts(split.targets);
  const at::Tensor p = (trained + 1.0 / double(size)) / (trained.sum(1, /*keepdim=*/true) + 1);
  return -((seen * p.log()).sum() / seen.sum()).item<double>();
}

}  // namespace deq
