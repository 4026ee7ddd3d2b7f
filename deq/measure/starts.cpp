#include "deq/measure/starts.h"

#include <ATen/ATen.h>

#include <cmath>
#include <map>

#include "deq/data/random.h"
#include "deq/train/answers.h"

namespace deq {

using at::Tensor;

namespace {

/// The start where this number is smallest; the first of several.
const Trial& smallest(const std::vector<const Trial*>& starts, double Trial::*number) {
  const Trial* best = starts.front();
  for (const Trial* one : starts) {
    if (one->*number < best->*number) best = one;
  }
  return *best;
}
const Trial& surest(const std::vector<const Trial*>& starts) {
  return smallest(starts, &Trial::residual);
}

bool majority_right(const std::vector<const Trial*>& starts) {
  std::map<uint64_t, std::vector<const Trial*>> answers;
  for (const Trial* one : starts) answers[one->answer].push_back(one);
  const std::vector<const Trial*>* most = &answers.begin()->second;
  for (const auto& [answer, given] : answers) {
    const bool surer = surest(given).residual < surest(*most).residual;
    if (given.size() > most->size() || (given.size() == most->size() && surer)) most = &given;
  }
  return most->front()->right;
}

Breadth count(const std::vector<Trials>& all, size_t starts, size_t limit) {
  const size_t problems = all.front().at[limit].size();
  Breadth found{.starts = int64_t(starts), .limit = all.front().limits[limit]};
  const bool has_energies = problems > 0 && !std::isnan(all.front().at[limit].front().energy);
  if (has_energies) found.by_energy = 0;
  for (size_t p = 0; p < problems; ++p) {
    std::vector<const Trial*> own;
    bool any = false;
    for (size_t s = 0; s < starts; ++s) {
      own.push_back(&all[s].at[limit][p]);
      any = any || own.back()->right;
      found.evaluations += double(own.back()->evaluations);
    }
    found.by_residual += surest(own).right;
    if (has_energies) found.by_energy += smallest(own, &Trial::energy).right;
    found.majority += majority_right(own);
    found.any += any;
  }
  for (double* sum :
       {&found.by_residual, &found.by_energy, &found.majority, &found.any, &found.evaluations})
    *sum /= double(problems);
  return found;
}

}  // namespace

StartOf random_start(int64_t seed, double std, int64_t start) {
  return [=](const Tensor& zeros, int64_t first) {
    Tensor z0 = at::empty_like(zeros);
    for (int64_t b = 0; b < zeros.size(0); ++b) {
      z0[b].copy_(random_state(z0[b].sizes(), std, random_stream({seed, start, first + b})()));
    }
    return z0;
  };
}

std::vector<Breadth> count_starts(const std::vector<Trials>& starts) {
  std::vector<Breadth> found;
  if (starts.empty() || starts.front().at.front().empty()) return found;
  std::vector<size_t> numbers;
  for (size_t n = 1; n < starts.size(); n *= 2) numbers.push_back(n);
  numbers.push_back(starts.size());
  for (const size_t n : numbers) {
    for (size_t limit = 0; limit < starts.front().limits.size(); ++limit)
      found.push_back(count(starts, n, limit));
  }
  return found;
}

}  // namespace deq
