#include "deq/cells/cell.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>

#include "deq/base/error.h"

namespace deq {

double Cell::operations(int64_t, int64_t, int64_t) const {
  return std::numeric_limits<double>::quiet_NaN();
}

void Cell::forget(History& history, const std::vector<int64_t>& rows, int64_t kept) const {
  const int64_t hidden = history.length() - kept;
  if (rows.empty() || hidden <= 0) return;
  const at::Tensor& any = history.k.defined() ? history.k : history.z;
  history.hidden.resize(size_t(any.size(0)), 0);
  for (const int64_t row : rows) {
    int64_t& own = history.hidden.at(size_t(row));
    own = std::max(own, hidden);
  }
}

at::Tensor emptied(const at::Tensor& part, const std::vector<int64_t>& rows) {
  if (!part.defined() || rows.empty()) return part;
  return part.index_fill(0, at::tensor(rows, at::kLong).to(part.device()), 0);
}

at::Tensor latest(const at::Tensor& old, const at::Tensor& fresh, int64_t length) {
  const at::Tensor all =
      old.defined() ? at::cat({old.detach(), fresh.detach()}, 1) : fresh.detach();
  const int64_t kept = std::min(length, all.size(1));
  return all.narrow(1, all.size(1) - kept, kept).clone(at::MemoryFormat::Contiguous);
}

std::vector<int64_t> still_hidden(std::vector<int64_t> hidden, int64_t forgotten) {
  for (int64_t& count : hidden) count = std::max<int64_t>(0, count - forgotten);
  const bool some = std::any_of(hidden.begin(), hidden.end(), [](int64_t n) { return n > 0; });
  return some ? hidden : std::vector<int64_t>();
}

void check_weights(const char* cell, const History& history, uint64_t contents) {
  DEQ_CHECK(history.weights == 0 || contents == 0 || history.weights == contents,
            "{}: a history of {} positions that other weights gave; expected one of the present "
            "weights: begin the text anew after they change",
            cell, history.length());
}

void check_bound_shapes(const char* cell, const at::Tensor& x, int64_t width, int64_t state_width,
                        const std::vector<History>& levels) {
  DEQ_CHECK(x.dim() == 3 && x.size(2) == width,
            "{}: x has shape [{}]; expected (batch, positions, {})", cell,
            fmt::join(x.sizes(), ", "), width);
  DEQ_CHECK(!levels.empty(), "{}: no history given; expected one for each level, or an empty one",
            cell);
  const auto check = [&](const at::Tensor& part, int64_t features) {
    DEQ_CHECK(!part.defined() ||
                  (part.dim() == 3 && part.size(0) == x.size(0) && part.size(2) == features),
              "{}: history of shape [{}]; expected ({}, positions, {})", cell,
              fmt::join(part.sizes(), ", "), x.size(0), features);
  };
  for (const History& history : levels) {
    check(history.z, state_width);
    check(history.x, width);
    check(history.k, state_width);
    check(history.v, state_width);
    DEQ_CHECK(history.k.defined() == history.v.defined(),
              "{}: a history of keys or of values alone; expected both", cell);
    DEQ_CHECK(history.hidden.empty() || int64_t(history.hidden.size()) == x.size(0),
              "{}: a history with hidden positions of {} samples; expected {}", cell,
              history.hidden.size(), x.size(0));
  }
}

}  // namespace deq
