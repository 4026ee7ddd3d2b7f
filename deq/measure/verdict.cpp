#include "deq/measure/verdict.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "deq/base/error.h"

namespace deq {

double roc_area(const std::vector<double>& residuals, const std::vector<char>& right) {
  DEQ_CHECK(residuals.size() == right.size(), "roc_area: {} residuals of {} answers",
            residuals.size(), right.size());
  std::vector<std::pair<double, bool>> all;
  for (size_t i = 0; i < right.size(); ++i)
    all.emplace_back(
        std::isfinite(residuals[i]) ? residuals[i] : std::numeric_limits<double>::infinity(),
        right[i]);
  std::sort(all.begin(), all.end());
  // Pairs of a right and a wrong one in which the right one's residual is smaller.
  double ordered = 0, rights = 0, wrongs = 0;
  for (size_t begin = 0, end; begin < all.size(); begin = end) {
    double right_here = 0, wrong_here = 0;
    for (end = begin; end < all.size() && all[end].first == all[begin].first; ++end)
      ++(all[end].second ? right_here : wrong_here);
    ordered += wrong_here * (rights + right_here / 2);
    rights += right_here;
    wrongs += wrong_here;
  }
  return ordered / (rights * wrongs);  // NaN where one of them is 0
}

double median(std::vector<double> values) {
  if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return (values[(n - 1) / 2] + values[n / 2]) / 2;
}

}  // namespace deq
