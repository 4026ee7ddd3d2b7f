#include "deq/cells/perron_frobenius.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "deq/base/error.h"
#include "deq/ops/elimination.h"

namespace deq {

using at::Tensor;
using Numbers = std::vector<double>;

namespace {

constexpr double kEpsilon = std::numeric_limits<double>::epsilon();

/// |A|, of some of its rows and columns.
struct Piece {
  const double* a;
  int64_t n;
  std::vector<int64_t> rows;

  size_t size() const { return rows.size(); }
  double at(size_t i, size_t j) const { return a[rows[i] * n + rows[j]]; }
};

/// Strongly connected components of the graph i -> j where a_ij != 0, by Tarjan's algorithm with a
/// stack of its own: those that are pointed at first.
class Components {
 public:
  Components(const double* a, int64_t n) : a_(a), n_(n) {
    number_.assign(size_t(n), 0);
    low_.assign(size_t(n), 0);
    found.assign(size_t(n), -1);
    for (int64_t i = 0; i < n; ++i)
      if (number_[size_t(i)] == 0) visit(i);
  }

  std::vector<int64_t> found;
  int64_t count = 0;

 private:
  struct Call {
    int64_t node, next;
  };

  void enter(int64_t node) {
    number_[size_t(node)] = low_[size_t(node)] = ++visited_;
    open_.push_back(node);
    calls_.push_back({node, 0});
  }

  void visit(int64_t root) {
    enter(root);
    while (!calls_.empty()) {
      Call& call = calls_.back();
      const int64_t i = call.node;
      if (call.next == n_) {
        leave(i);
        continue;
      }
      const int64_t j = call.next++;
      if (a_[i * n_ + j] == 0 || i == j) continue;
      if (number_[size_t(j)] == 0) {
        enter(j);
      } else if (found[size_t(j)] < 0) {
        low_[size_t(i)] = std::min(low_[size_t(i)], number_[size_t(j)]);
      }
    }
  }

  void leave(int64_t i) {
    if (low_[size_t(i)] == number_[size_t(i)]) {
      int64_t node = -1;
      do {
        node = open_.back();
        open_.pop_back();
        found[size_t(node)] = count;
      } while (node != i);
      ++count;
    }
    calls_.pop_back();
    if (calls_.empty()) return;
    int64_t& before = low_[size_t(calls_.back().node)];
    before = std::min(before, low_[size_t(i)]);
  }

  const double* a_;
  int64_t n_, visited_ = 0;
  std::vector<int64_t> number_, low_, open_;
  std::vector<Call> calls_;
};

struct Bounds {
  double lower = 0, upper = std::numeric_limits<double>::infinity();
  bool tight() const { return upper - lower <= 64 * kEpsilon * upper; }
};

/// |A| v, of a v > 0.
Numbers product(const Piece& piece, const Numbers& v) {
  Numbers image(piece.size(), 0);
  for (size_t i = 0; i < piece.size(); ++i)
    for (size_t j = 0; j < piece.size(); ++j) image[i] += piece.at(i, j) * v[j];
  return image;
}

/// What v > 0 proves. Sums of numbers of one sign are right to a rounding each.
Bounds bounds_of(const Numbers& v, const Numbers& image) {
  Bounds found{std::numeric_limits<double>::infinity(), 0};
  for (size_t i = 0; i < v.size(); ++i) {
    found.lower = std::min(found.lower, image[i] / v[i]);
    found.upper = std::max(found.upper, image[i] / v[i]);
  }
  const double rounding = double(v.size() + 4) * kEpsilon;
  found.lower *= 1 - rounding;
  found.upper *= 1 + rounding;
  return found;
}

/// Scaled to a largest number of 1; false where a number has become none or 0.
bool scale(Numbers& v) {
  double largest = 0;
  for (const double x : v) largest = std::max(largest, x);
  for (double& x : v) {
    x /= largest;
    if (!(x > std::numeric_limits<double>::min()) || !std::isfinite(x)) return false;
  }
  return true;
}

/// v and the best bounds so far; `v` that proves no better ones is dropped.
struct Search {
  const Piece& piece;
  Numbers v;
  Bounds bounds = {};

  bool take(Numbers next) {
    if (!scale(next)) return false;
    const Bounds found = bounds_of(next, product(piece, next));
    if (!(found.upper - found.lower < bounds.upper - bounds.lower)) return false;
    v = std::move(next);
    bounds = {std::max(bounds.lower, found.lower), std::min(bounds.upper, found.upper)};
    return true;
  }
};

/// Of |A| + s I, which unlike |A| may have no other eigenvalue of that size.
void iterate(Search& search) {
  constexpr int kIterations = 100;
  Numbers v = search.v;
  for (int k = 0; k < kIterations && !search.bounds.tight(); ++k) {
    Numbers image = product(search.piece, v);
    const double shift = 0.5 * bounds_of(v, image).upper;
    for (size_t i = 0; i < v.size(); ++i) image[i] += shift * v[i];
    if (!scale(image)) return;
    v = image;
    search.take(v);
  }
}

/// w with (upper I - |A|) w = v: an M-matrix, whose inverse is positive.
Numbers solved(const Search& search) {
  const auto m = int64_t(search.piece.size());
  Tensor M = at::empty({m, m}, at::kDouble);
  double* to = M.data_ptr<double>();
  for (size_t i = 0; i < search.piece.size(); ++i)
    for (size_t j = 0; j < search.piece.size(); ++j)
      *to++ = (i == j ? search.bounds.upper : 0) - search.piece.at(i, j);
  const Tensor inverse = ops::inverse(M);
  const double* from = inverse.data_ptr<double>();
  Numbers w(search.piece.size(), 0);
  for (double& sum : w)
    for (const double x : search.v) sum += *from++ * x;
  return w;
}

Bounds bound_piece(const Piece& piece, Numbers& v) {
  if (piece.size() == 1) {
    v = {1};
    return {piece.at(0, 0), piece.at(0, 0)};
  }
  Search search{piece, Numbers(piece.size(), 1)};
  search.take(search.v);
  iterate(search);
  constexpr int kNoda = 20;
  for (int k = 0; k < kNoda && !search.bounds.tight() && search.take(solved(search)); ++k) {
  }
  v = search.v;
  return search.bounds;
}

}  // namespace

PerronFrobenius perron_frobenius(const Tensor& A) {
  DEQ_CHECK(A.defined() && A.dim() == 2 && A.size(0) == A.size(1) && A.is_floating_point(),
            "perron_frobenius: A is {}; expected (n, n) of floating-point numbers",
            A.defined() ? fmt::format("[{}]", fmt::join(A.sizes(), ", ")) : "undefined");
  const Tensor M = A.detach().to(at::kCPU, at::kDouble).abs().contiguous();
  DEQ_CHECK(M.isfinite().all().item<bool>(),
            "perron_frobenius: A holds NaN or infinity; expected finite numbers");
  const int64_t n = M.size(0);
  const Components components(M.data_ptr<double>(), n);
  PerronFrobenius found{0, 0, at::ones({n}, at::kDouble), components.found};
  std::vector<Piece> pieces(size_t(components.count), Piece{M.data_ptr<double>(), n, {}});
  for (int64_t i = 0; i < n; ++i) pieces[size_t(components.found[size_t(i)])].rows.push_back(i);
  for (const Piece& piece : pieces) {
    Numbers v;
    const Bounds bounds = bound_piece(piece, v);
    found.lower = std::max(found.lower, bounds.lower);
    found.upper = std::max(found.upper, bounds.upper);
    for (size_t i = 0; i < v.size(); ++i) found.vector.data_ptr<double>()[piece.rows[i]] = v[i];
  }
  return found;
}

}  // namespace deq
