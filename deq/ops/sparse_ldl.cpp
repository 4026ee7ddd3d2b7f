#include "deq/ops/sparse_ldl.h"

#include <algorithm>
#include <set>

namespace deq::ops {

SparseLdl::SparseLdl(int64_t n, const std::vector<Place>& places) : n_(n) {
  find_order(places);
  find_pattern(places);
}

/// Takes the row with the fewest neighbours, whose neighbours become each other's; what is left
/// when all of it are, goes in any order.
void SparseLdl::find_order(const std::vector<Place>& places) {
  std::vector<std::vector<int32_t>> beside(static_cast<size_t>(n_));
  for (const auto& [i, j] : places) {
    if (i == j) continue;
    beside[size_t(i)].push_back(j);
    beside[size_t(j)].push_back(i);
  }
  std::set<std::pair<size_t, int32_t>> open;
  for (int32_t i = 0; i < n_; ++i) {
    std::ranges::sort(beside[size_t(i)]);
    open.emplace(beside[size_t(i)].size(), i);
  }
  order_.reserve(size_t(n_));
  std::vector<int32_t> together;
  while (!open.empty() && open.begin()->first + 1 < open.size()) {
    const int32_t i = open.begin()->second;
    open.erase(open.begin());
    order_.push_back(i);
    const std::vector<int32_t> clique = std::move(beside[size_t(i)]);
    for (const int32_t j : clique) {
      std::vector<int32_t>& own = beside[size_t(j)];
      open.erase({own.size(), j});
      together.clear();
      std::ranges::set_union(own, clique, std::back_inserter(together));
      std::erase_if(together, [&](int32_t k) { return k == i || k == j; });
      own.assign(together.begin(), together.end());
      open.emplace(own.size(), j);
    }
  }
  for (const auto& [degree, i] : open) order_.push_back(i);
}

void SparseLdl::find_pattern(const std::vector<Place>& places) {
  const size_t n = size_t(n_);
  std::vector<int32_t> rank(n);
  for (size_t i = 0; i < n; ++i) rank[size_t(order_[i])] = int32_t(i);
  diagonal_.resize(n);
  from_begin_.assign(n + 1, 0);
  const auto above = [&](const Place& at) {
    const int32_t i = rank[size_t(at.row)], j = rank[size_t(at.column)];
    return std::pair{std::min(i, j), std::max(i, j)};
  };
  for (const Place& at : places)
    if (at.row != at.column) ++from_begin_[size_t(above(at).second) + 1];
  for (size_t k = 0; k < n; ++k) from_begin_[k + 1] += from_begin_[k];
  from_row_.resize(size_t(from_begin_[n]));
  from_place_.resize(from_row_.size());
  std::vector<int64_t> next(from_begin_.begin(), from_begin_.end() - 1);
  for (size_t e = 0; e < places.size(); ++e) {
    const auto [i, j] = above(places[e]);
    if (i == j) {
      diagonal_[size_t(i)] = int32_t(e);
      continue;
    }
    const size_t to = size_t(next[size_t(j)]++);
    from_row_[to] = i;
    from_place_[to] = int32_t(e);
  }
  // Row k of L: from each number of K in column k up the elimination tree.
  std::vector<int32_t> parent(n, -1), seen(n, -1);
  std::vector<int64_t> count(n + 1, 0);
  left_begin_.assign(n + 1, 0);
  for (size_t k = 0; k < n; ++k) {
    seen[k] = int32_t(k);
    for (int64_t e = from_begin_[k]; e < from_begin_[k + 1]; ++e) {
      for (int32_t i = from_row_[size_t(e)]; seen[size_t(i)] != int32_t(k); i = parent[size_t(i)]) {
        if (parent[size_t(i)] < 0) parent[size_t(i)] = int32_t(k);
        seen[size_t(i)] = int32_t(k);
        left_.push_back(i);
      }
    }
    std::sort(left_.begin() + left_begin_[k], left_.end());
    left_begin_[k + 1] = int64_t(left_.size());
  }
  for (const int32_t j : left_) ++count[size_t(j) + 1];
  for (size_t k = 0; k < n; ++k) count[k + 1] += count[k];
  begin_ = count;
  row_.resize(left_.size());
  end_.resize(left_.size());
  for (size_t k = 0; k < n; ++k) {
    for (int64_t e = left_begin_[k]; e < left_begin_[k + 1]; ++e) {
      const int64_t at = count[size_t(left_[size_t(e)])]++;
      row_[size_t(at)] = int32_t(k);
      end_[size_t(e)] = at;
    }
  }
}

void SparseLdl::factor(const double* values, double* L, double* D, double* y) const {
  for (int64_t k = 0; k < n_; ++k) {
    double pivot = values[diagonal_[size_t(k)]];
    for (int64_t e = from_begin_[size_t(k)]; e < from_begin_[size_t(k) + 1]; ++e)
      y[from_row_[size_t(e)]] = values[from_place_[size_t(e)]];
    for (int64_t e = left_begin_[size_t(k)]; e < left_begin_[size_t(k) + 1]; ++e) {
      const int32_t j = left_[size_t(e)];
      const double own = y[j], share = own / D[j];
      y[j] = 0;
      const int64_t end = end_[size_t(e)];
      for (int64_t at = begin_[size_t(j)]; at < end; ++at) y[row_[size_t(at)]] -= L[at] * own;
      L[end] = share;
      pivot -= share * own;
    }
    D[k] = pivot;
  }
}

void SparseLdl::solve(const double* L, const double* D, double* x, double* y) const {
  for (int64_t k = 0; k < n_; ++k) y[k] = x[order_[size_t(k)]];
  for (int64_t k = 0; k < n_; ++k)
    for (int64_t at = begin_[size_t(k)]; at < begin_[size_t(k) + 1]; ++at)
      y[row_[size_t(at)]] -= L[at] * y[k];
  for (int64_t k = n_ - 1; k >= 0; --k) {
    double sum = y[k] / D[k];
    for (int64_t at = begin_[size_t(k)]; at < begin_[size_t(k) + 1]; ++at)
      sum -= L[at] * y[row_[size_t(at)]];
    y[k] = sum;
  }
  for (int64_t k = 0; k < n_; ++k) x[order_[size_t(k)]] = y[k], y[k] = 0;
}

}  // namespace deq::ops
