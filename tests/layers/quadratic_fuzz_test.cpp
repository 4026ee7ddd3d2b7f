// Anything through minimise, dense and sparse: any shape, none of something, duplicate rows, NaN,
// infinities, numbers of any size. Whatever comes, numbers are finite, what is Converged meets the
// conditions, and what has no solution has a certificate of that.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <random>

#include "deq/layers/quadratic_program.h"
#include "tests/layers/fuzz.h"

namespace deq::testing {
namespace {

using at::Tensor;
using Wide = long double;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr Wide kClose = 1e-5;

enum class Kind { Whole, Normal, Sizes, Extremes, Wild };

class Draw {
 public:
  explicit Draw(uint64_t seed) : random_(seed) {}
  int64_t below(int64_t n) { return int64_t(random_() % uint64_t(n)); }
  bool one_in(int64_t n) { return below(n) == 0; }
  double normal() { return normal_(random_); }
  double power(int most) { return std::pow(10.0, double(below(2 * most + 1)) - most); }

  double number(Kind kind) {
    // The first of moderate sizes; then of sizes beyond what can be told in doubles beside each
    // other; then out of range.
    static const double extremes[] = {0,   0,    1,     -1,    1,    0.5, 2,         1e-6, -1e-6,
                                      1e6, 1e40, -1e40, 1e-45, 1e12, NAN, kInfinity, 1e60, 1e-310};
    if (kind == Kind::Whole) return double(below(5)) - 2;
    if (kind == Kind::Extremes) return extremes[below(10)];
    if (kind == Kind::Wild) return extremes[below(18)];
    return normal();
  }

 private:
  std::mt19937_64 random_;
  std::normal_distribution<double> normal_;
};

/// One program, by rows.
struct Program {
  int64_t n, p, m;
  std::vector<double> Q, q, A, b, G, h;
  std::vector<std::vector<double>> numbers;  // those six, before they are read
  bool finite = true, wild = false;

  Program(int64_t n_, int64_t p_, int64_t m_, const std::vector<uint8_t>& places, Draw& draw)
      : n(n_), p(p_), m(m_), Q(size_t(n * n), 0.0) {
    const Kind kind = Kind(draw.one_in(3) ? 3 + draw.below(2) : draw.below(3));
    wild = kind == Kind::Wild;
    const auto fill = [&](std::vector<double>& x, int64_t count) {
      for (int64_t i = 0; i < count; ++i) x.push_back(draw.number(kind));
    };
    if (kind >= Kind::Extremes) {
      Q.clear();
      fill(Q, n * n);
    } else {
      std::vector<double> half;
      const int64_t rank = draw.below(n + 2);
      fill(half, rank * n);
      const bool indefinite = draw.one_in(20);
      for (int64_t r = 0; r < rank; ++r)
        for (int64_t i = 0; i < n; ++i)
          for (int64_t j = 0; j < n; ++j)
            Q[size_t(i * n + j)] +=
                (indefinite && r == 0 ? -1 : 1) * half[size_t(r * n + i)] * half[size_t(r * n + j)];
      if (draw.one_in(3)) {  // a part that does not count
        for (int64_t i = 0; i < n; ++i) {
          for (int64_t j = 0; j < i; ++j) {
            const double skew = double(draw.below(5)) - 2;
            Q[size_t(i * n + j)] += skew, Q[size_t(j * n + i)] -= skew;
          }
        }
      }
    }
    fill(q, n), fill(A, p * n), fill(b, p), fill(G, m * n), fill(h, m);
    if (kind < Kind::Extremes)
      for (double& x : h) x += double(draw.below(4));
    // Zeros where the batch's sparse pattern has none.
    for (size_t i = 0; i < Q.size(); ++i)
      if (!places[i] && Q[i] == Q[i]) Q[i] = 0;
    for (size_t i = 0; i < A.size(); ++i)
      if (!places[size_t(n * n) + i]) A[i] = 0;
    for (size_t i = 0; i < G.size(); ++i)
      if (!places[size_t(n * n) + A.size() + i]) G[i] = 0;
    if (p > 1 && draw.one_in(4)) repeat(A, b, 0, p - 1, 1 + double(draw.below(3)), draw);
    if (m > 1 && draw.one_in(3)) repeat(G, h, 0, m - 1, 1 + double(draw.below(3)), draw);
    if (m > 0 && draw.one_in(8)) std::fill_n(G.begin() + draw.below(m) * n, n, 0.0);
    if (m > 0 && draw.one_in(8)) h[size_t(draw.below(m))] = kInfinity;
    if (kind == Kind::Sizes) resize(draw);
    for (auto* x : {&Q, &q, &A, &b, &G})
      for (double& value : *x) finite &= std::fabs(value) <= 1e50;
    for (double& value : h) finite &= value >= -1e50;
    for (auto* x : {&Q, &q, &A, &b, &G, &h}) numbers.push_back(*x);
    // What the layer reads.
    for (auto* x : {&Q, &q, &A, &b, &G, &h})
      for (double& value : *x) value = std::fabs(value) < 1e-50 ? 0 : value;
    for (double& value : h) value = value > 1e50 ? kInfinity : value;
  }

  /// Row `to` is a multiple of row `from`, mostly with its side.
  void repeat(std::vector<double>& rows, std::vector<double>& sides, int64_t from, int64_t to,
              double by, Draw& draw) {
    for (int64_t j = 0; j < n; ++j) rows[size_t(to * n + j)] = by * rows[size_t(from * n + j)];
    if (!draw.one_in(3)) sides[size_t(to)] = by * sides[size_t(from)];
  }
  /// Rows, and the objective, of other sizes.
  void resize(Draw& draw) {
    const double objective = draw.power(8);
    for (double& x : Q) x *= objective;
    for (double& x : q) x *= objective;
    const auto rows = [&](std::vector<double>& M, std::vector<double>& sides) {
      for (size_t r = 0; r < sides.size(); ++r) {
        const double by = draw.power(6);
        for (int64_t j = 0; j < n; ++j) M[r * size_t(n) + size_t(j)] *= by;
        sides[r] *= by;
      }
    };
    rows(A, b);
    rows(G, h);
  }

  const double* row(int64_t r) const { return r < p ? A.data() + r * n : G.data() + (r - p) * n; }
  double side(int64_t r) const { return r < p ? b[size_t(r)] : h[size_t(r - p)]; }
  Wide size(int64_t r) const {
    double most = 0;
    for (int64_t j = 0; j < n; ++j) most = std::max(most, std::fabs(row(r)[j]));
    return most > 0 ? most : 1;
  }
  Wide curved(int64_t i, const double* x) const {
    Wide sum = 0;
    for (int64_t j = 0; j < n; ++j)
      sum += 0.5L * (Wide(Q[size_t(i * n + j)]) + Wide(Q[size_t(j * n + i)])) * x[j];
    return sum;
  }
  Wide along(int64_t r, const double* x) const {
    Wide sum = 0;
    for (int64_t j = 0; j < n; ++j) sum += Wide(row(r)[j]) * x[j];
    return sum;
  }
  std::string text() const {
    const auto list = [](const std::vector<double>& x) {
      return fmt::format("{}", fmt::join(x, ","));
    };
    return fmt::format("n {} p {} m {} Q {} q {} A {} b {} G {} h {}", n, p, m, list(Q), list(q),
                       list(A), list(b), list(G), list(h));
  }

  /// How far z, nu and lam are from meeting the conditions, as a share of what they are made of.
  Wide violation(const double* z, const double* nu, const double* lam) const {
    Wide reach = 0, force = 0, worst = 0;
    for (int64_t j = 0; j < n; ++j) {
      reach = std::max(reach, std::fabs(Wide(z[j])));
      force = std::max(force, std::fabs(Wide(q[size_t(j)])));
    }
    for (int64_t r = 0; r < p + m; ++r) {
      if (std::isfinite(side(r))) reach = std::max(reach, std::fabs(side(r)) / size(r));
      force = std::max(force, std::fabs(Wide(r < p ? nu[r] : lam[r - p])) * size(r));
    }
    Wide bent = 0, sides = 0, pull = 0;
    for (const double x : Q) bent = std::max(bent, std::fabs(Wide(x)));
    for (const double x : q) pull = std::max(pull, std::fabs(Wide(x)));
    for (int64_t r = 0; r < p + m; ++r)
      if (std::isfinite(side(r))) sides = std::max(sides, std::fabs(Wide(side(r))));
    if (bent > 0) reach = std::max(reach, force / bent);
    // Where nothing has a size, rounding is of that of 1.
    if (sides == 0 && (bent == 0 || pull == 0)) reach = std::max(reach, Wide(1));
    if (pull == 0 && (bent == 0 || sides == 0)) force = std::max(force, Wide(1));
    force = std::max(force, bent * reach);
    reach = std::max(reach, Wide(1e-50)), force = std::max(force, Wide(1e-50));
    for (int64_t j = 0; j < n; ++j) {
      Wide sum = Wide(q[size_t(j)]) + curved(j, z);
      for (int64_t r = 0; r < p + m; ++r) sum += Wide(row(r)[j]) * (r < p ? nu[r] : lam[r - p]);
      worst = std::max(worst, std::fabs(sum) / force);
    }
    for (int64_t r = 0; r < p; ++r)
      worst = std::max(worst, std::fabs(along(r, z) - b[size_t(r)]) / size(r) / reach);
    for (int64_t r = p; r < p + m; ++r) {
      const Wide slack = (Wide(side(r)) - along(r, z)) / size(r) / reach,
                 press = lam[r - p] * size(r) / force;
      worst = std::max({worst, -slack, -press, std::min(std::fabs(slack), std::fabs(press))});
    }
    return worst;
  }

  /// What is wrong with a proof that there is no solution; "" if nothing.
  std::string disproof(Reason reason, const double* y) const {
    Wide most = 0, shown = 0, terms = 0, left = 0;
    if (reason == Reason::Infeasible) {
      for (int64_t r = 0; r < p + m; ++r) {
        if (r >= p && y[r] < 0) return "a multiplier below 0";
        if (y[r] == 0) continue;
        most = std::max(most, std::fabs(y[r]) * size(r));
        shown -= Wide(y[r]) * side(r);
        terms += std::fabs(Wide(y[r]) * side(r));
      }
      for (int64_t j = 0; j < n; ++j) {
        Wide sum = 0;
        for (int64_t r = 0; r < p + m; ++r) sum += Wide(row(r)[j]) * y[r];
        left = std::max(left, std::fabs(sum));
      }
    } else {
      for (int64_t j = 0; j < n; ++j) most = std::max(most, std::fabs(Wide(y[j])));
      Wide sizes = 0;
      for (const double x : Q) sizes = std::max(sizes, std::fabs(Wide(x)));
      for (int64_t j = 0; j < n; ++j) {
        const Wide bent = curved(j, y);
        if (reason == Reason::NotConvex) {
          shown -= bent * y[j];
          continue;
        }
        shown -= Wide(q[size_t(j)]) * y[j];
        if (sizes > 0) left = std::max(left, std::fabs(bent) / sizes);
      }
      for (int64_t r = 0; r < p + m && reason == Reason::Unbounded; ++r) {
        const Wide moved = along(r, y) / size(r);
        if (r < p || std::isfinite(side(r)))
          left = std::max(left, r < p ? std::fabs(moved) : moved);
      }
    }
    if (!(shown > 0)) return fmt::format("it shows {}", double(shown));
    if (!(left <= kClose * std::max(most, shown)))
      return fmt::format("{} is left of {}", double(left), double(most));
    return "";
  }
};

Tensor together(const std::vector<Program>& all, size_t which, std::vector<int64_t> sizes) {
  std::vector<double> numbers;
  for (const Program& s : all)
    numbers.insert(numbers.end(), s.numbers[which].begin(), s.numbers[which].end());
  sizes.insert(sizes.begin(), int64_t(all.size()));
  return at::tensor(numbers, at::kDouble).view(sizes);
}

class QuadraticFuzz : public ::testing::Test {
 protected:
  std::map<Reason, int64_t> counts_;
  int64_t programs_ = 0;

  void judge(const std::vector<Program>& all, const Optimum& found, const char* how) {
    const Tensor z = found.z.detach().contiguous(), nu = found.nu.detach().contiguous(),
                 lam = found.lam.detach().contiguous(), proof = found.certificate.contiguous();
    const uint8_t* const reasons = found.report.reason.data_ptr<uint8_t>();
    for (size_t i = 0; i < all.size(); ++i) {
      const Program& s = all[i];
      const Reason reason = Reason(reasons[i]);
      ++counts_[reason];
      ++programs_;
      for (const Tensor* t : {&z, &nu, &lam, &proof})
        ASSERT_TRUE((*t)[int64_t(i)].isfinite().all().item<bool>())
            << (*t)[int64_t(i)] << how << ", " << int(reason) << ": " << s.text();
      ASSERT_EQ(reason == Reason::NonFinite, !s.finite) << how << " " << s.text();
      if (s.wild) continue;
      if (reason == Reason::Converged || reason == Reason::NotUnique) {
        const Wide off = s.violation(z.data_ptr<double>() + int64_t(i) * s.n,
                                     nu.data_ptr<double>() + int64_t(i) * s.p,
                                     lam.data_ptr<double>() + int64_t(i) * s.m);
        EXPECT_LE(off, kClose) << how << ", " << int(reason) << ": " << s.text();
      } else if (reason != Reason::NonFinite && reason != Reason::MaxSteps) {
        EXPECT_EQ(s.disproof(reason, proof.data_ptr<double>() + int64_t(i) * proof.size(1)), "")
            << how << ", " << int(reason) << ": " << s.text();
      }
    }
  }

  void batch(Draw& draw) {
    const int64_t n = draw.one_in(40) ? 30 + draw.below(10) : 1 + draw.below(6), p = draw.below(4),
                  m = draw.one_in(5) ? 0 : draw.below(9),
                  B = draw.one_in(50) ? 0 : 1 + draw.below(24);
    const bool thin = draw.one_in(2);
    std::vector<uint8_t> places(size_t((n + p + m) * n));
    for (uint8_t& place : places) place = !thin || draw.one_in(2);
    std::vector<Program> all;
    for (int64_t i = 0; i < B; ++i) all.emplace_back(n, p, m, places, draw);
    QuadraticProgram program{.Q = together(all, 0, {n, n}), .q = together(all, 1, {n})};
    if (p > 0) program.A = together(all, 2, {p, n}), program.b = together(all, 3, {p});
    if (m > 0) program.G = together(all, 4, {m, n}), program.h = together(all, 5, {m});
    std::vector<Tensor> inputs;
    for (Tensor* t : {&program.Q, &program.q, &program.A, &program.b, &program.G, &program.h})
      if (t->defined() && draw.one_in(2)) inputs.push_back(t->requires_grad_());
    MinimiseOptions options{.stop = {.max_steps = 60, .rel_tol = 1e-8}};
    options.degenerate = draw.one_in(3)   ? Degenerate::Inactive
                         : draw.one_in(2) ? Degenerate::Active
                                          : Degenerate::LeastNorm;
    const bool sparse = thin || draw.one_in(4);
    const auto of = [](const Tensor& M) { return M.defined() ? compressed(M) : SparseMatrix(); };
    const auto solve = [&] {
      if (!sparse) return minimise(program, options);
      return minimise(SparseProgram{of(program.Q), program.q, of(program.A), program.b,
                                    of(program.G), program.h},
                      options);
    };
    const char* const how = sparse ? "sparse" : "dense";
    const Optimum found = solve();
    if (B > 0) judge(all, found, how);
    if (HasFailure()) return;
    if (!inputs.empty() && B > 0) {
      const auto gradients = torch::autograd::grad(
          {found.z.sum() + found.nu.sum() + found.lam.sum()}, inputs, {}, {}, false, true);
      const Tensor open = found.report.reason.ne(int64_t(Reason::Converged));
      for (const Tensor& gradient : gradients) {
        if (!gradient.defined() || gradient.numel() == 0) continue;
        const Tensor rows = gradient.flatten(1).index_select(0, open.nonzero().squeeze(1));
        ASSERT_TRUE(rows.eq(0).all().item<bool>()) << how << all[0].text();
      }
    }
    Tensor rows = at::empty({B, m}, at::kBool);
    for (int64_t i = 0; i < rows.numel(); ++i) rows.data_ptr<bool>()[i] = draw.one_in(2);
    if (draw.one_in(2)) rows = found.active;
    options.warm = &rows;
    if (B > 0 && draw.one_in(2)) judge(all, solve(), sparse ? "sparse, warm" : "dense, warm");
  }
};

TEST_F(QuadraticFuzz, NothingPassesForSolvedThatIsNot) {
  Draw draw(fuzz_seed(1));
  for (int64_t k = 0; k < 300 * fuzz_times() && !HasFailure(); ++k) batch(draw);
  fmt::print(
      "{} programs: {} converged, {} one of many, {} infeasible, {} unbounded, {} not convex, "
      "{} not finite, {} given up\n",
      programs_, counts_[Reason::Converged], counts_[Reason::NotUnique],
      counts_[Reason::Infeasible], counts_[Reason::Unbounded], counts_[Reason::NotConvex],
      counts_[Reason::NonFinite], counts_[Reason::MaxSteps]);
  for (const Reason reason : {Reason::Converged, Reason::NotUnique, Reason::Infeasible,
                              Reason::Unbounded, Reason::NotConvex, Reason::NonFinite})
    EXPECT_GT(counts_[reason], 10) << int(reason);
  EXPECT_LT(counts_[Reason::MaxSteps], programs_ / 50);
}

}  // namespace
}  // namespace deq::testing
