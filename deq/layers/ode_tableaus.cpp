#include "deq/layers/ode_tableaus.h"

namespace deq::ode {
namespace {

/// Rows of a without their zeros at the end, brought to full length; c their sums where not given.
Tableau completed(Tableau t) {
  const size_t all = t.a.size();
  for (auto& row : t.a) row.resize(all, 0.0);
  if (t.c.empty()) {
    for (const auto& row : t.a) {
      double sum = 0;
      for (const double entry : row) sum += entry;
      t.c.push_back(sum);
    }
  }
  t.b.resize(all, 0.0);
  if (!t.error.empty()) t.error.resize(all, 0.0);
  t.stages = t.stages ? t.stages : int(all);
  return t;
}

/// y + theta h f0 + ..., the cubic through y, y1 = y + h sum b k, and their slopes k_0 and k_last.
std::vector<std::vector<double>> hermite(const std::vector<double>& b) {
  std::vector<std::vector<double>> dense;
  for (const double weight : b) dense.push_back({0.0, 3 * weight, -2 * weight});
  dense.front()[0] += 1;
  dense.front()[1] -= 2;
  dense.front()[2] += 1;
  dense.back()[1] -= 1;
  dense.back()[2] += 1;
  return dense;
}

}  // namespace

std::vector<double> weights_at(const std::vector<std::vector<double>>& dense, double theta) {
  std::vector<double> weights;
  weights.reserve(dense.size());
  for (const auto& polynomial : dense) {
    double sum = 0;
    for (size_t p = polynomial.size(); p-- > 0;) sum = (sum + polynomial[p]) * theta;
    weights.push_back(sum);
  }
  return weights;
}

const Tableau& tsit5() {
  static const Tableau tableau = completed({
      .order = 5,
      .error_order = 5,
      .dense_order = 4,
      .a = {{},
            {0.161},
            {-0.008480655492356989, 0.33548065549235699},
            {2.8971530571054935, -6.359448489975075, 4.3622954328695815},
            {5.325864828439257, -11.748883564062828, 7.4955393428898365, -0.09249506636175525},
            {5.86145544294642, -12.92096931784711, 8.159367898576159, -0.071584973281401,
             -0.028269050394068383},
            {0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081,
             2.324710524099774}},
      .c = {0, 0.161, 0.327, 0.9, 0.9800255409045097, 1, 1},
      .b = {0.09646076681806523, 0.01, 0.4798896504144996, 1.379008574103742, -3.290069515436081,
            2.324710524099774},
      .error = {0.09646076681806523 - 0.09468075576583945, 0.01 - 0.009183565540343254,
                0.4798896504144996 - 0.4877705284247616, 1.379008574103742 - 1.234297566930479,
                -3.290069515436081 + 2.7077123499835256, 2.324710524099774 - 1.866628418170587,
                -1.0 / 66},
      .dense = {{1.0, -2.763706197274826, 2.9132554618219126, -1.0530884977290216},
                {0.0, 0.1317, -0.2234, 0.1017},
                {0.0, 3.9302962368947516, -5.941033872131505, 2.490627285651253},
                {0.0, -12.411077166933676, 30.33818863028232, -16.548102889244902},
                {0.0, 37.50931341651104, -88.1789048947664, 47.37952196281928},
                {0.0, -27.896526289197286, 65.09189467479366, -34.87065786149661},
                {0.0, 1.5, -4.0, 2.5}},
  });
  return tableau;
}

const Tableau& dopri5() {
  static const Tableau tableau = completed({
      .order = 5,
      .error_order = 5,
      .dense_order = 4,
      .a = {{},
            {1.0 / 5},
            {3.0 / 40, 9.0 / 40},
            {44.0 / 45, -56.0 / 15, 32.0 / 9},
            {19372.0 / 6561, -25360.0 / 2187, 64448.0 / 6561, -212.0 / 729},
            {9017.0 / 3168, -355.0 / 33, 46732.0 / 5247, 49.0 / 176, -5103.0 / 18656},
            {35.0 / 384, 0, 500.0 / 1113, 125.0 / 192, -2187.0 / 6784, 11.0 / 84}},
      .c = {0, 1.0 / 5, 3.0 / 10, 4.0 / 5, 8.0 / 9, 1, 1},
      .b = {35.0 / 384, 0, 500.0 / 1113, 125.0 / 192, -2187.0 / 6784, 11.0 / 84},
      .error = {71.0 / 57600, 0, -71.0 / 16695, 71.0 / 1920, -17253.0 / 339200, 22.0 / 525,
                -1.0 / 40},
      .dense = {{1.0, -8048581381.0 / 2820520608, 8663915743.0 / 2820520608,
                 -12715105075.0 / 11282082432},
                {0.0, 0.0, 0.0, 0.0},
                {0.0, 131558114200.0 / 32700410799, -68118460800.0 / 10900136933,
                 87487479700.0 / 32700410799},
                {0.0, -1754552775.0 / 470086768, 14199869525.0 / 1410260304,
                 -10690763975.0 / 1880347072},
                {0.0, 127303824393.0 / 49829197408, -318862633887.0 / 49829197408,
                 701980252875.0 / 199316789632},
                {0.0, -282668133.0 / 205662961, 2019193451.0 / 616988883,
                 -1453857185.0 / 822651844},
                {0.0, 40617522.0 / 29380423, -110615467.0 / 29380423, 69997945.0 / 29380423}},
  });
  return tableau;
}

const Tableau& bosh3() {
  static const Tableau tableau = completed({
      .order = 3,
      .error_order = 3,
      .dense_order = 3,
      .a = {{}, {1.0 / 2}, {0, 3.0 / 4}, {2.0 / 9, 1.0 / 3, 4.0 / 9}},
      .c = {0, 1.0 / 2, 3.0 / 4, 1},
      .b = {2.0 / 9, 1.0 / 3, 4.0 / 9},
      .error = {5.0 / 72, -1.0 / 12, -1.0 / 9, 1.0 / 8},
      .dense = hermite({2.0 / 9, 1.0 / 3, 4.0 / 9, 0}),
  });
  return tableau;
}

const Tableau& runge_kutta4() {
  static const Tableau tableau = completed({
      .order = 4,
      .error_order = 0,
      .dense_order = 3,
      .a = {{}, {0.5}, {0, 0.5}, {0, 0, 1}, {1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6}},
      .c = {0, 0.5, 0.5, 1, 1},
      .b = {1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6},
      .dense = hermite({1.0 / 6, 1.0 / 3, 1.0 / 3, 1.0 / 6, 0}),
  });
  return tableau;
}

}  // namespace deq::ode
