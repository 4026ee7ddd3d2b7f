// Rodas5P: with W = I / (h gamma) - J, J = df/dy and d = df/dt at (t, y),
//
//     W u_i = f(t + alpha_i h, y + sum_{j<i} a_ij u_j) + sum_{j<i} c_ij / h u_j + h gamma_i d
//     y(t + h) = y + sum_i m_i u_i,     the last u the estimate of the error.
//
// Coefficients and extension: Steinebach, BIT 63:27 (2023), transformed as in Hairer and Wanner II,
// IV.7.
#include <ATen/ATen.h>

#include "deq/layers/ode_stiff.h"

namespace deq::ode {
namespace {

using at::Tensor;

constexpr double kGamma = 0.21193756319429014;
constexpr int kStages = 8;
constexpr double kAlpha[kStages] = {
    0, 0.6358126895828704, 0.4095798393397535, 0.9769306725060716, 0.4288403609558664, 1, 1, 1};
constexpr double kGammas[kStages] = {0.21193756319429014,
                                     -0.42387512638858027,
                                     -0.3384627126235924,
                                     1.8046452872882734,
                                     2.325825639765069,
                                     0,
                                     0,
                                     0};
const std::vector<std::vector<double>>& table_a() {
  static const std::vector<std::vector<double>> values = {
      {},
      {3.0},
      {2.849394379747939, 0.45842242204463923},
      {-6.954028509809101, 2.489845061869568, -10.358996098473584},
      {2.8029986275628964, 0.5072464736228206, -0.3988312541770524, -0.04721187230404641},
      {-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256,
       0.030198172008377946},
      {-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256,
       0.030198172008377946, 1},
      {-7.502846399306121, 2.561846144803919, -11.627539656261098, -0.18268767659942256,
       0.030198172008377946, 1, 1}};
  return values;
}

const std::vector<std::vector<double>>& table_c() {
  static const std::vector<std::vector<double>> values = {
      {},
      {-14.155112264123755},
      {-17.97296035885952, -2.859693295451294},
      {147.12150275711716, -1.41221402718213, 71.68940251302358},
      {165.43517024871676, -0.4592823456491126, 42.90938336958603, -5.961986721573306},
      {24.854864614690072, -3.0009227002832186, 47.4931110020768, 5.5814197821558125,
       -0.6610691825249471},
      {30.91273214028599, -3.1208243349937974, 77.79954646070892, 34.28646028294783,
       -19.097331116725623, -28.087943162872662},
      {37.80277123390563, -3.2571969029072276, 112.26918849496327, 66.9347231244047,
       -40.06618937091002, -54.66780262877968, -9.48861652309627}};
  return values;
}

const std::vector<double>& table_m() {
  static const std::vector<double> values = {-7.502846399306121,
                                             2.561846144803919,
                                             -11.627539656261098,
                                             -0.18268767659942256,
                                             0.030198172008377946,
                                             1,
                                             1,
                                             1};
  return values;
}

const std::vector<double>& table_error() {
  static const std::vector<double> values = {0, 0, 0, 0, 0, 0, 0, 1};
  return values;
}

/// y(theta) = y + theta m u + theta (1 - theta) (H_0 + theta H_1 + theta^2 H_2) u
const std::vector<double> kH[3] = {
    {25.948786856663858, -2.5579724845846235, 10.433815404888879, -2.3679251022685204,
     0.524948541321073, 1.1241088310450404, 0.4272876194431874, -0.17202221070155493},
    {-9.91568850695171, -0.9689944594115154, 3.0438037242978453, -24.495224566215796,
     20.176138334709044, 15.98066361424651, -6.789040303419874, -6.710236069923372},
    {11.419903575922262, 2.8879645146136994, 72.92137995996029, 80.12511834622643,
     -52.072871366152654, -59.78993625266729, -0.15582684282751913, 4.883087185713722}};

class Rodas : public Stepper {
 public:
  Rodas(const Field& f, const ops::Allowance& allowed) : f_(f), allowed_(allowed) {}

  std::vector<double> attempt(Work& work) override {
    work.scale.assign(size_t(work.rows), 1.0);
    if (!state_.defined()) {
      state_ = at::zeros_like(work.y);
      right_ = at::zeros_like(work.y);
    }
    at_.refresh(work, f_);
    at_.factor(work, kGamma);
    std::vector<double> inverse;
    for (const double h : work.h) inverse.push_back(1 / h);
    for (int i = 0; i < kStages; ++i) {
      Tensor value = at_.f;
      if (i > 0) {
        ops::stage_sum(state_, work.y, work.k, table_a()[size_t(i)], work.scale, work.rows);
        value = f_(work.times(kAlpha[i]), work.head(state_), work.index()).contiguous();
      }
      ops::stage_sum(right_, value, work.k, table_c()[size_t(i)], inverse, work.rows);
      ops::stage_spread(right_.unsqueeze(0), at_.dt, {kGammas[i]}, work.h, work.rows);
      at_.solve(right_);
      store(work.k, i, work.head(right_), work.rows);
    }
    ops::stage_sum(work.next, work.y, work.k, table_m(), work.scale, work.rows);
    return ops::stage_error(work.y, work.next, work.k, table_error(), work.scale, allowed_,
                            work.rows);
  }

  void advance(Work& work, const std::vector<char>& accepted) override {
    Stepper::advance(work, accepted);
    for (size_t r = 0; r < accepted.size(); ++r) work.known[r] = !accepted[r];
  }

  std::vector<Tensor> taped(const Field& f, const Tensor& y, const std::vector<double>& t,
                            const std::vector<double>& h, const Tensor& rows) const override {
    const auto at = f.jacobian(times_at(t, h, 0, y), y, rows, /*taped=*/true);
    std::vector<double> diagonal, inverse;
    for (const double step : h) {
      diagonal.push_back(1 / (step * kGamma));
      inverse.push_back(1 / step);
    }
    const Tensor W =
        column_of(diagonal, y).unsqueeze(2) * at::eye(y.size(1), y.options().requires_grad(false)) -
        at.y;
    const Tensor step = column_of(h, y), over = column_of(inverse, y);
    std::vector<Tensor> u;
    for (int i = 0; i < kStages; ++i) {
      Tensor state = y, right;
      for (size_t j = 0; j < u.size(); ++j) state = state + table_a()[size_t(i)][j] * u[j];
      right = f(times_at(t, h, kAlpha[i], y), state, rows);
      for (size_t j = 0; j < u.size(); ++j) right = right + table_c()[size_t(i)][j] * over * u[j];
      if (kGammas[i] != 0 && at.t.defined()) right = right + kGammas[i] * step * at.t;
      u.push_back(at::linalg_solve(W, right.unsqueeze(2)).squeeze(2));
    }
    return u;
  }

  std::vector<double> weights(double theta) const override {
    std::vector<double> w(table_m());
    if (theta == 1) return w;
    for (size_t i = 0; i < w.size(); ++i)
      w[i] = theta * (w[i] + (1 - theta) * (kH[0][i] + theta * (kH[1][i] + theta * kH[2][i])));
    return w;
  }

  int stages() const override { return kStages; }
  int error_order() const override { return 5; }
  bool scaled_by_h() const override { return false; }
  int64_t jacobians() const override { return at_.jacobians; }
  int64_t factorisations() const override { return at_.factorisations; }

 private:
  Field f_;
  ops::Allowance allowed_;
  Linearisation at_;
  Tensor state_, right_;
};

}  // namespace

std::unique_ptr<Stepper> rodas5p(const Field& f, const ops::Allowance& allowed) {
  return std::make_unique<Rodas>(f, allowed);
}

}  // namespace deq::ode
