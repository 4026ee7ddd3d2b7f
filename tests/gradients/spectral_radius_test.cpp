#include "deq/gradients/spectral_radius.h"

#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include "tests/base/scratch.h"
#include "tests/gradients/dense_jacobian.h"

namespace deq {
namespace {

using at::Tensor;
using namespace testing;

Tensor block(double rho, double angle) {
  return at::tensor({rho * std::cos(angle), -rho * std::sin(angle), rho * std::sin(angle),
                     rho * std::cos(angle)},
                    at::kDouble)
      .view({2, 2});
}
/// z M for every sample.
Map linear(const Tensor& M) {
  return [M](const Tensor& z) { return z.matmul(M.to(z.scalar_type())); };
}
/// M in another basis, so that nothing is aligned with the coordinates and J is not normal.
Tensor hidden(const Tensor& M, uint64_t seed, double scale = 0.3) {
  const int64_t n = M.size(0);
  const Tensor basis = at::eye(n, at::kDouble) + scale * randn({n, n}, at::kDouble, seed);
  return basis.matmul(M).matmul(at::linalg_inv(basis));
}

struct Case {
  const char* name;
  Tensor M;
  double radius;
};

class Radius : public ::testing::TestWithParam<at::ScalarType> {};
INSTANTIATE_TEST_SUITE_P(Types, Radius, ::testing::Values(at::kFloat, at::kDouble),
                         [](const auto& info) { return std::string(c10::toString(info.param)); });

TEST_P(Radius, OfRealAndComplexEigenvalues) {
  const Tensor real = at::diag(at::tensor({0.9, 0.3, -0.5, 0.1}, at::kDouble));
  const Tensor negative = at::diag(at::tensor({-0.9, 0.3, 0.5, 0.1}, at::kDouble));
  const Tensor opposite = at::diag(at::tensor({-0.9, 0.9, 0.5, 0.1}, at::kDouble));
  const Tensor twice = at::diag(at::tensor({0.9, 0.9, 0.5, 0.1}, at::kDouble));
  const Tensor pair = at::block_diag({block(0.9014, 1.2), block(0.6, 0.4)});
  const Tensor mixed = at::block_diag({block(0.9014, 1.9), at::full({1, 1}, 0.5, at::kDouble)});
  const Tensor quarter = at::block_diag({block(1.3, M_PI / 2), block(0.5, 1)});
  for (const Case& s : {Case{"real", real, .9},
                        {"real, hidden", hidden(real, 110), .9},
                        {"negative", hidden(negative, 111), .9},
                        {"opposite", hidden(opposite, 112), .9},
                        {"twice", hidden(twice, 113), .9},
                        {"pair", pair, .9014},
                        {"pair, hidden", hidden(pair, 114), .9014},
                        {"mixed", hidden(mixed, 115), .9014},
                        {"quarter turn", hidden(quarter, 116), 1.3},
                        {"one number", at::full({1, 1}, -0.7, at::kDouble), .7},
                        {"zero", at::zeros({3, 3}, at::kDouble), 0}}) {
    at::manual_seed(4);
    const Tensor z = at::zeros({3, s.M.size(0)}, GetParam());
    const Tensor rho = spectral_radius(linear(s.M), z).radius;
    ASSERT_EQ(rho.sizes(), (at::IntArrayRef{3}));
    EXPECT_EQ(rho.scalar_type(), at::kDouble);
    EXPECT_LT(largest(rho - s.radius), 1e-3) << s.name << rho;
  }
}

TEST_P(Radius, OfNilpotentMapsIsZero) {
  const Tensor shift = at::diag(at::ones({4}, at::kDouble), 1);  // 5 x 5
  const Tensor z = at::zeros({2, 5}, GetParam());
  EXPECT_LT(largest(spectral_radius(linear(shift), z).radius), 1e-3);
}

TEST_P(Radius, IsThatOfEverySampleByItself) {
  const Tensor slopes = at::tensor({0.2, 0.9, 1.5}, at::kDouble).view({3, 1, 1}).to(GetParam());
  const Map f = [&](const Tensor& z) { return slopes * z.flip(2); };
  const Tensor rho = spectral_radius(f, at::zeros({3, 4, 5}, GetParam())).radius;
  EXPECT_LT(largest(rho - slopes.view(-1)), 1e-3) << rho;
}

TEST(Radius, OfANonlinearMapIsThatOfItsJacobian) {
  const Layer layer;
  const Tensor z = randn({1, 4, 5}, at::kDouble, 105);
  const Map f = [&](const Tensor& z) { return at::tanh(z.matmul(layer.W) + layer.x[0]); };
  const double expected = at::linalg_eigvals(dense_jacobian(f, z)).abs().max().item<double>();
  at::manual_seed(5);
  EXPECT_NEAR(spectral_radius(f, z).radius.item<double>(), expected, 1e-3 * expected);
}

Tensor orthogonal(int64_t n, uint64_t seed) {
  return std::get<0>(at::linalg_qr(randn({n, n}, at::kDouble, seed)));
}

// States of more numbers than a subspace holds, too; the seeds choose where the search begins.
TEST_P(Radius, OfManyEigenvaluesOfOneModulus) {
  const Tensor shift = at::eye(3, at::kDouble).roll(1, 0);
  const Tensor levels = at::block_diag({0.708 * orthogonal(90, 121), 0.5 * orthogonal(90, 122)});
  const Tensor steps = at::diag(at::linspace(-0.8, 0.8, 200, at::kDouble));
  for (const Case& s : {Case{"32", 1.1 * orthogonal(32, 120), 1.1},
                        {"128", 1.1 * orthogonal(128, 123), 1.1},
                        {"256", 1.1 * orthogonal(256, 124), 1.1},
                        {"shift of 3", 0.9 * shift, .9},
                        {"90 shifts of 3", at::kron(at::eye(90, at::kDouble), 0.9 * shift), .9},
                        {"shift of 200", 0.9 * at::eye(200, at::kDouble).roll(1, 0), .9},
                        {"two levels", hidden(levels, 125, 0.03), .708},
                        {"a multiple of the identity", 0.9 * at::eye(300, at::kDouble), .9},
                        {"a range", hidden(steps, 126, 0.03), .8}}) {
    for (const int64_t seed : {1, 2, 3}) {
      at::manual_seed(seed);
      const SpectralRadius rho =
          spectral_radius(linear(s.M), at::zeros({2, s.M.size(0)}, GetParam()));
      EXPECT_TRUE(rho.converged()) << s.name << " " << rho.residual;
      EXPECT_LT(largest(rho.radius - s.radius), 2e-3) << s.name << rho.radius;
      EXPECT_LE(rho.products, 1280);
    }
  }
}

TEST_P(Radius, OfMatricesThatAreNotNormal) {
  for (const int64_t n : {20, 120, 300}) {
    const Tensor M = randn({n, n}, at::kDouble, 130) / std::sqrt(double(n));
    const Tensor D = at::diag(at::linspace(0.1, 0.9, n, at::kDouble));
    const Tensor triangular = D + (0.5 * M).triu(1);
    const Tensor defective = at::block_diag({0.9 * at::eye(2, at::kDouble), 0.5 * M});
    defective[0][1] = 1;
    for (const Case& s : {Case{"random", M, at::linalg_eigvals(M).abs().max().item<double>()},
                          {"triangular", triangular, .9},
                          {"defective", defective, .9}}) {
      at::manual_seed(n);
      const SpectralRadius rho =
          spectral_radius(linear(s.M), at::zeros({2, s.M.size(0)}, GetParam()));
      if (n <= 120) {
        EXPECT_TRUE(rho.converged());
      }
      if (rho.converged()) {
        EXPECT_LT(largest(rho.radius - s.radius), 1e-2) << s.name << n << rho.radius;
      }
    }
  }
}

TEST(Radius, IsProportionalToJ) {
  for (const int64_t n : {4, 200}) {
    const Tensor turn = orthogonal(n, 131);
    for (const double c : {1e-310, 1e-163, 1e-160, 1e-155, 1e150, 1e156, 1e160, 1e300}) {
      for (const Tensor& M : {turn, at::eye(n, at::kDouble)}) {
        at::manual_seed(1);
        const SpectralRadius rho = spectral_radius(linear(M * c), at::zeros({2, n}, at::kDouble));
        EXPECT_LT(largest(rho.radius / c - 1), 1e-3) << c << rho.radius;
        EXPECT_TRUE(rho.converged()) << c << rho.residual << rho.moved;
      }
    }
    for (const double c : {1e-35, 1e-30, 1e30, 1e36}) {
      at::manual_seed(1);
      const Tensor z = at::zeros({2, n}, at::kFloat);
      const SpectralRadius rho = spectral_radius(linear(turn * c), z);
      EXPECT_LT(largest(rho.radius / c - 1), 1e-3) << c << rho.radius;
      EXPECT_TRUE(rho.converged()) << c << rho.residual << rho.moved;
    }
  }
  // Of numbers of very different sizes, of each sample; and beyond all numbers.
  const Tensor apart = at::tensor({0.0, 1e180, 1e-180, 0.0}, at::kDouble).view({2, 2});
  EXPECT_LT(largest(spectral_radius(linear(apart), at::zeros({1, 2}, at::kDouble)).radius - 1),
            1e-9);
  const Tensor far_apart = at::tensor({1e308, 1e-320, 0.0, 1.0}, at::kDouble).view({2, 2});
  EXPECT_LT(
      largest(spectral_radius(linear(far_apart), at::zeros({1, 2}, at::kDouble)).radius / 1e308 -
              1),
      1e-9);
  const Tensor scales = at::tensor({1e-200, 1e200}, at::kDouble).view({2, 1});
  const SpectralRadius both =
      spectral_radius([&](const Tensor& z) { return z * scales; }, at::zeros({2, 3}, at::kDouble));
  EXPECT_LT(largest(both.radius / scales.view(-1) - 1), 1e-9);
  const SpectralRadius beyond =
      spectral_radius(linear(at::full({3, 3}, 1e308, at::kDouble)), at::zeros({1, 3}, at::kDouble));
  EXPECT_FALSE(beyond.converged()) << beyond.radius;
}

Tensor jordan(int64_t n, double eigenvalue, double above) {
  return eigenvalue * at::eye(n, at::kDouble) + at::diag(at::full({n - 1}, above, at::kDouble), 1);
}

TEST_P(Radius, ThatRoundingMovesHasNotConverged) {
  for (const Case& s : {Case{"chain", jordan(130, 0, 1), 0}, Case{".5", jordan(130, .5, 1), .5}}) {
    for (const int64_t seed : {1, 2, 3, 4, 5}) {
      at::manual_seed(seed);
      const SpectralRadius rho =
          spectral_radius(linear(s.M), at::zeros({2, s.M.size(0)}, GetParam()));
      const bool right = largest(rho.radius - s.radius) <= 1e-2;
      EXPECT_TRUE(right || !rho.converged()) << s.name << rho.radius << rho.moved;
    }
  }
  // In coordinates of no order, all of J is known and its radius is not; in its own, it is.
  const Tensor turn = orthogonal(100, 132);
  const Tensor z = at::zeros({1, 100}, GetParam());
  const Tensor chain = jordan(100, .5, 1);
  EXPECT_FALSE(spectral_radius(linear(turn.matmul(chain).matmul(turn.t())), z).converged());
  const SpectralRadius own = spectral_radius(linear(chain), z);
  EXPECT_TRUE(own.converged());
  EXPECT_NEAR(own.radius.item<double>(), .5, 1e-12);
}

TEST(Radius, OfAJacobianThatIsNotFiniteIsNone) {
  const Tensor z = at::ones({2, 3}, at::kDouble);
  z[0].neg_();
  const SpectralRadius rho = spectral_radius([](const Tensor& z) { return z.sqrt(); }, z);
  EXPECT_TRUE(rho.radius[0].isnan().item<bool>());
  EXPECT_NEAR(rho.radius[1].item<double>(), 0.5, 1e-12);
  EXPECT_FALSE(rho.converged());
}

TEST(Radius, SaysThatItHasNotConverged) {
  const Map f = linear(1.1 * orthogonal(256, 127));  // 20 vectors of 256 alike
  at::manual_seed(1);
  const SpectralRadius rho = spectral_radius(f, at::zeros({2, 256}, at::kDouble), 20);
  EXPECT_EQ(rho.products, 20);
  EXPECT_FALSE(rho.converged());
  EXPECT_GT(rho.residual.min().item<double>(), 0.05);
}

TEST(Radius, WrongArgumentsAreErrors) {
  const Map f = [](const Tensor& z) { return 0.5 * z; };
  EXPECT_SAYS(error_of([&] {
                spectral_radius(f, at::zeros({2, 3}, at::kDouble), 0);
              }),
              "max_products = 0");
}

TEST(Radius, InInferenceModeIsAnError) {
  const c10::InferenceMode inference;
  const Tensor z = at::ones({2, 3}, at::kDouble);
  EXPECT_SAYS(error_of([&] { spectral_radius([](const Tensor& z) { return 0.5 * z; }, z); }),
              "InferenceMode");
}

}  // namespace
}  // namespace deq
