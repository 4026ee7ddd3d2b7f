// Coefficients by their order conditions, and the orders by what happens to halved steps.
#include "deq/layers/ode_tableaus.h"

#include <gtest/gtest.h>

#include <cmath>

#include "deq/layers/ode_driver.h"
#include "tests/layers/ode_problems.h"

namespace deq::ode {
namespace {

using at::Tensor;

struct Named {
  const char* name;
  const Tableau& tableau;
};
const Named kTableaus[] = {{"tsit5", tsit5()},
                           {"dopri5", dopri5()},
                           {"bosh3", bosh3()},
                           {"dopri8", dopri8()},
                           {"runge_kutta4", runge_kutta4()}};

TEST(OdeTableaus, NodesAreRowSums) {
  for (const auto& [name, tableau] : kTableaus) {
    for (size_t i = 0; i < tableau.a.size(); ++i) {
      double sum = 0;
      for (const double entry : tableau.a[i]) sum += entry;
      EXPECT_NEAR(sum, tableau.c[i], 1e-13) << name << ", stage " << i;
    }
  }
}

/// sum_i b_i(theta) phi_i = theta^order / gamma for the trees up to order 4.
void expect_conditions(const Tableau& tableau, const std::vector<double>& b, double theta,
                       int order, const std::string& what) {
  const size_t n = tableau.a.size();
  std::vector<double> one(n, 1.0), c = tableau.c, c2(n), c3(n), ac(n, 0), cac(n), ac2(n, 0),
                                   aac(n, 0);
  for (size_t i = 0; i < n; ++i) {
    c2[i] = c[i] * c[i];
    c3[i] = c2[i] * c[i];
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) {
      ac[i] += tableau.a[i][j] * c[j];
      ac2[i] += tableau.a[i][j] * c2[j];
    }
    cac[i] = c[i] * ac[i];
  }
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) aac[i] += tableau.a[i][j] * ac[j];
  }
  struct Tree {
    const std::vector<double>& phi;
    int order;
    double gamma;
  };
  for (const auto& [phi, size, gamma] :
       {Tree{one, 1, 1}, Tree{c, 2, 2}, Tree{c2, 3, 3}, Tree{ac, 3, 6}, Tree{c3, 4, 4},
        Tree{cac, 4, 8}, Tree{ac2, 4, 12}, Tree{aac, 4, 24}}) {
    if (size > order) continue;
    double sum = 0;
    for (size_t i = 0; i < n; ++i) sum += b[i] * phi[i];
    EXPECT_NEAR(sum, std::pow(theta, size) / gamma, 2e-13) << what << ", order " << size;
  }
}

TEST(OdeTableaus, MeetTheOrderConditions) {
  for (const auto& [name, tableau] : kTableaus) {
    expect_conditions(tableau, tableau.b, 1, tableau.order, name);
    for (const double theta : {0.25, 0.6, 1.0}) {
      expect_conditions(tableau, weights_at(tableau.dense, theta), theta, tableau.dense_order,
                        std::string(name) + ", extension");
    }
    if (tableau.error.empty()) continue;
    auto embedded = tableau.b;
    for (size_t i = 0; i < embedded.size(); ++i) embedded[i] -= tableau.error[i];
    expect_conditions(tableau, embedded, 1, std::min(4, tableau.error_order - 1),
                      std::string(name) + ", embedded");
  }
}

TEST(OdeTableaus, ExtensionsMeetTheStep) {
  for (const auto& [name, tableau] : kTableaus) {
    const auto end = weights_at(tableau.dense, 1);
    for (size_t i = 0; i < end.size(); ++i)
      EXPECT_NEAR(end[i], tableau.b[i], 1e-12) << name << ", stage " << i;
  }
}

/// Steps of one size over [0, 2], the largest error at the steps' ends and inside the first.
std::pair<double, double> errors(const OdeMethod& method, int steps) {
  const Field f(OdeFunction(&testing::relaxation), {2}, at::kDouble);
  const ops::Allowance allowed{1e-10, at::full({2}, 1e-13, at::kDouble)};
  const auto stepper = stepper_of(method, f, allowed);
  const Tensor y0 = at::tensor({1.5, -0.5}, at::kDouble).unsqueeze(0);
  Work work(1, 2, stepper->stages(), y0.options());
  work.fill({0}, y0);
  double at_ends = 0, inside = 0;
  for (int n = 0; n < steps; ++n) {
    work.h[0] = 2.0 / steps;
    work.t[0] = n * work.h[0];
    stepper->attempt(work);
    if (n == 0) {
      stepper->extend(work);
      for (const double theta : {0.2, 0.5, 0.8}) {
        const Tensor y = at::empty_like(y0);
        ops::stage_points(y, work.y, work.k, {{0, 0, work.scale[0]}}, stepper->weights(theta));
        const Tensor error = (y - testing::relaxation_at(theta * work.h[0], y0)).abs();
        inside = std::max(inside, error.max().item<double>());
      }
    }
    stepper->advance(work, {1});
    const Tensor error = (work.y - testing::relaxation_at(work.t[0] + work.h[0], y0)).abs();
    at_ends = std::max(at_ends, error.max().item<double>());
  }
  return {at_ends, inside};
}

TEST(OdeOrders, ErrorsFallWithTheStep) {
  struct Order {
    OdeMethod method;
    int steps;
    double order, local;  // of the solution; of the extension within one step
  };
  for (const auto& [method, steps, order, local] :
       {Order{Tsit5{}, 8, 5, 5}, Order{Dopri5{}, 8, 5, 5}, Order{Bosh3{}, 16, 3, 4},
        Order{Dopri8{}, 3, 8, 8}, Order{RungeKutta4{}, 8, 4, 4}, Order{Rodas5P{}, 8, 5, 5},
        Order{Kvaerno5{}, 8, 5, 5}}) {
    const auto coarse = errors(method, steps), fine = errors(method, 2 * steps);
    EXPECT_GE(std::log2(coarse.first / fine.first), order - 0.35) << testing::name_of(method);
    EXPECT_GE(std::log2(coarse.second / fine.second), local - 0.35)
        << testing::name_of(method) << ", extension";
    EXPECT_LE(fine.first, 1e-3) << testing::name_of(method);
  }
}

}  // namespace
}  // namespace deq::ode
