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

}  // namespace deq
