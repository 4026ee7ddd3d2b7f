// Anything through integrate: linear equations whose solutions are known, stiff, growing and not
// finite ones, times that rise, fall and repeat, none of something, every method and gradient.
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <cmath>
#include <map>
#include <random>

#include "deq/layers/ode.h"
#include "tests/layers/fuzz.h"

namespace deq::testing {
namespace {

using at::Tensor;

class OdeFuzz : public ::testing::Test {
 protected:
  explicit OdeFuzz() : random_(fuzz_seed(1)) {}
  int64_t below(int64_t n) { return int64_t(random_() % uint64_t(n)); }
  double uniform(double from, double to) {
    return from + (to - from) * double(random_() >> 11) * 0x1p-53;
  }
  Tensor numbers(std::vector<int64_t> sizes, double from, double to) {
    const Tensor t = at::empty(sizes, at::kDouble);
    for (int64_t i = 0; i < t.numel(); ++i) t.data_ptr<double>()[i] = uniform(from, to);
    return t;
  }

  Tensor drawn_times() {
    std::vector<double> times;
    for (int64_t k = below(5) + 1; k > 0; --k) times.push_back(uniform(-1, 2));
    if (times.size() > 1 && below(4) == 0) times[1] = times[0];
    std::ranges::sort(times);
    if (below(3) == 0) std::ranges::reverse(times);
    return at::tensor(times, at::kDouble);
  }

  OdeMethod method(bool& is_explicit) {
    const int64_t which = below(6);
    is_explicit = which < 4;
    if (which == 0) return Tsit5{};
    if (which == 1) return Dopri5{};
    if (which == 2) return Dopri8{};
    if (which == 3) return Bosh3{};
    if (which == 4) return Rodas5P{};
    return Kvaerno5{};
  }

  /// y' = a y + c, of which each number has its own.
  void equation() {
    const int64_t B = below(20) ? 1 + below(6) : 0, D = below(20) ? 1 + below(3) : 0;
    bool is_explicit = true;
    OdeOptions how{.method = method(is_explicit)};
    how.rel_tol = how.abs_tol = std::pow(10.0, uniform(-9, -3));
    how.max_steps = 3000;
    const int64_t gradient = below(is_explicit ? 5 : 3);
    if (gradient == 1) how.gradient = Unrolled{};
    if (gradient == 2) how.gradient = Interpolated{};
    if (gradient == 3) how.gradient = Reversible{};
    if (gradient == 4) how.gradient = Backsolve{};
    // Fast ones only forwards in time, and where a method can follow them.
    const Tensor times = drawn_times();
    const bool falls = times[0].item<double>() > times[-1].item<double>();
    const double most = below(8) || falls ? 4 : is_explicit ? 100 : 1e5;
    const Tensor a = numbers({B, D}, -most, 3), c = numbers({B, D}, -2, 2);
    Tensor y0 = numbers({B, D}, -2, 2);
    const Tensor bad = at::zeros({B}, at::kBool);
    for (int64_t i = 0; i < B && D > 0; ++i) {
      if (below(12)) continue;
      const double extremes[] = {NAN, INFINITY, -INFINITY};
      (below(2) ? y0 : a)[i][below(D)] = extremes[below(3)];
      bad[i] = true;
    }
    const bool tapes = below(3) == 0;
    if (tapes) y0.requires_grad_();
    const OdeFunction f([&](const Tensor&, const Tensor& y, const Tensor& rows) {
      return at::addcmul(c.index_select(0, rows), a.index_select(0, rows), y);
    });
    const Trajectory found = integrate(f, y0, times, how);
    ASSERT_EQ(found.y.sizes(), at::IntArrayRef({times.size(0), B, D}));
    ASSERT_TRUE(found.y.isfinite().all().item<bool>()) << found.y;
    if (tapes) {
      const Tensor g = torch::autograd::grad({found.y.sum()}, {y0}, {}, {}, false, true)[0];
      ASSERT_TRUE(!g.defined() || g.sizes() == y0.sizes());
    }
    for (int64_t i = 0; i < B; ++i) {
      const Reason reason = Reason(found.report.reason[i].item<uint8_t>());
      ++counts_[reason];
      if (bad[i].item<bool>()) {
        const bool goes_nowhere = (times == times[0]).all().item<bool>();
        EXPECT_TRUE(reason != Reason::Converged || goes_nowhere) << int(reason) << a[i] << y0[i];
        continue;
      }
      if (reason != Reason::Converged || D == 0) continue;
      const Tensor t = (times - times[0]).unsqueeze(1), growth = (a[i] * t).exp();
      const Tensor exact = growth * y0[i].detach() +
                           c[i] * at::where(a[i].abs().lt(1e-9), t, at::expm1(a[i] * t) / a[i]);
      const double off = D == 0 ? 0
                                : ((found.y.detach().select(1, i) - exact).abs() /
                                   (1 + exact.abs().amax() + growth.amax()))
                                      .max()
                                      .item<double>();
      EXPECT_LE(off, 1e4 * how.rel_tol)
          << "gradient " << gradient << ", explicit " << is_explicit << ", tape " << tapes
          << " tolerance " << how.rel_tol << " a " << a[i] << times << found.report.steps
          << found.report.residual;
      worst_ = std::max(worst_, off / how.rel_tol);
    }
  }

  std::mt19937_64 random_;
  std::map<Reason, int64_t> counts_;
  double worst_ = 0;
};

TEST(OdeOfNothing, HasNothingAndAGradientOfIt) {
  const OdeMethod methods[] = {Tsit5{}, Rodas5P{}, Kvaerno5{}};
  for (const OdeGradient& gradient :
       {OdeGradient(Checkpointed{}), OdeGradient(Interpolated{}), OdeGradient(Unrolled{})}) {
    for (const OdeMethod& method : methods) {
      for (const auto& [B, D] : {std::pair{0, 3}, std::pair{2, 0}, std::pair{0, 0}}) {
        const Tensor y0 = at::ones({B, D}, at::kDouble).requires_grad_();
        const Trajectory found = integrate([](const Tensor&, const Tensor& y) { return -y; }, y0,
                                           {0, 1, 2}, {.method = method, .gradient = gradient});
        EXPECT_EQ(found.y.sizes(), at::IntArrayRef({3, B, D}));
        EXPECT_TRUE(found.report.converged());
        const Tensor g = torch::autograd::grad({found.y.sum()}, {y0}, {}, {}, false, true)[0];
        EXPECT_TRUE(!g.defined() || g.sizes() == y0.sizes());
      }
    }
  }
}

/// Found by the fuzz test: the two states of the reversible scheme part where y decays fast.
TEST(OdeReversible, IsRightOrSaysThatItIsNot) {
  for (const double rate : {1.0, 10.0, 50.0}) {
    const Tensor y0 = at::ones({1, 1}, at::kDouble);
    const Trajectory found =
        integrate([&](const Tensor&, const Tensor& y) { return -rate * y + 1; }, y0, {0, 1},
                  {.rel_tol = 1e-6, .abs_tol = 1e-6, .gradient = Reversible{}});
    const double exact = 1 / rate + (1 - 1 / rate) * std::exp(-rate);
    EXPECT_TRUE(found.report.converged() || rate > 10) << rate << describe(found.report);
    if (found.report.converged()) {
      EXPECT_NEAR(found.y[1].item<double>(), exact, 2e-3) << rate;
    }
  }
}

TEST(OdeWithoutASolution, HasTheGradient0) {
  for (const OdeGradient& gradient : {OdeGradient(Checkpointed{}), OdeGradient(Unrolled{})}) {
    const Tensor y0 = at::full({2, 1}, NAN, at::kDouble).requires_grad_();
    const Trajectory found = integrate([](const Tensor&, const Tensor& y) { return -y; }, y0,
                                       {0, 1}, {.gradient = gradient});
    EXPECT_EQ(found.report.count(Reason::NonFinite), 2);
    EXPECT_TRUE(torch::autograd::grad({found.y.sum()}, {y0})[0].eq(0).all().item<bool>());
  }
}

TEST_F(OdeFuzz, NothingPassesForSolvedThatIsNot) {
  for (int64_t k = 0; k < 200 * fuzz_times() && !HasFailure(); ++k) equation();
  int64_t all = 0;
  for (const auto& [reason, count] : counts_) all += count;
  fmt::print(
      "{} equations: {} converged, {} not finite, {} out of steps, {} underflow; the worst "
      "error {:.0f} tolerances\n",
      all, counts_[Reason::Converged], counts_[Reason::NonFinite], counts_[Reason::MaxSteps],
      counts_[Reason::StepUnderflow], worst_);
  EXPECT_GT(counts_[Reason::Converged], all / 2);
  EXPECT_GT(counts_[Reason::NonFinite], 10);
}

}  // namespace
}  // namespace deq::testing
