#include "deq/models/leaving.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <utility>

namespace deq {
namespace {

using at::Tensor;

/// One solve's evaluations.
class Leaving {
 public:
  Leaving(Model& model, Tensor tokens, const Map& all)
      : model_(model), tokens_(std::move(tokens)), bound_(all.series()) {
    for (int64_t b = 0; b < tokens_.size(0); ++b) here_.push_back(b);
  }

  Tensor operator()(const Tensor& z, const std::vector<int64_t>& done) {
    const std::vector<int64_t> open = open_of(done, z.size(1));
    if (open.empty()) return last_;
    if (open.size() * 4 <= here_.size() * 3 || !includes(open)) bind(open);
    const std::vector<int64_t> known = std::exchange(fresh_, false) ? none() : of_here(done);
    if (here_.size() == size_t(z.size(0))) return last_ = bound_(z, known);
    const Tensor rows = at::tensor(here_, at::kLong).to(z.device());
    const Tensor found = bound_(z.index_select(0, rows), known);
    return last_ = last_.index_copy(0, rows, found);
  }

 private:
  std::vector<int64_t> open_of(const std::vector<int64_t>& done, int64_t positions) const {
    std::vector<int64_t> open;
    for (int64_t b = 0; b < tokens_.size(0); ++b) {
      if (!last_.defined() || done.empty() || done[size_t(b)] < positions) open.push_back(b);
    }
    return open;
  }
  bool includes(const std::vector<int64_t>& open) const {
    return std::includes(here_.begin(), here_.end(), open.begin(), open.end());
  }
  std::vector<int64_t> none() const { return std::vector<int64_t>(here_.size(), 0); }
  std::vector<int64_t> of_here(const std::vector<int64_t>& done) const {
    if (done.empty()) return {};
    std::vector<int64_t> found;
    for (const int64_t b : here_) found.push_back(done[size_t(b)]);
    return found;
  }
  /// Two at least: LibTorch has another convolution for one, with other roundings.
  void bind(const std::vector<int64_t>& open) {
    here_ = open;
    fresh_ = true;
    if (here_.size() == 1 && tokens_.size(0) > 1)
      here_.insert(here_[0] > 0 ? here_.begin() : here_.end(), here_[0] > 0 ? 0 : 1);
    const Tensor rows = at::tensor(here_, at::kLong);
    bound_ = model_.bind(tokens_.index_select(0, rows), {}).front().f.series();
  }

  Model& model_;
  Tensor tokens_;  // (B, ...)
  Map::Series bound_;
  std::vector<int64_t> here_;  // problems that are bound, rising
  bool fresh_ = true;          // bound, and not evaluated yet
  Tensor last_;                // (B, ..., D) f of all
};

}  // namespace

Map leaving(Model& model, const Tensor& tokens) {
  const Map all = model.bind(tokens, {}).front().f;
  Map map([all](const Tensor& z) { return all(z); },
          [&model, tokens, all]() -> Map::Series {
            return
                [own = std::make_shared<Leaving>(model, tokens, all)](
                    const Tensor& z, const std::vector<int64_t>& done) { return (*own)(z, done); };
          });
  return map.set_energy(all.energy()).set_part(all.part(), all.strictly_causal());
}

}  // namespace deq
