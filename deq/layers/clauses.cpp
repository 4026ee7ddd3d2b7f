#include "deq/layers/clauses.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <sstream>
#include <string_view>

#include "deq/base/error.h"
#include "deq/base/printable.h"

namespace deq {
namespace {

constexpr int64_t kMostVariables = int64_t(1) << 24;

class Reader {
 public:
  Reader(const std::string& text, const std::string& source) : in_(text), source_(source) {}

  Clauses read() {
    for (std::string line; std::getline(in_, line); ++line_) {
      std::istringstream words(line);
      std::string word;
      if (!(words >> word) || word[0] == 'c') continue;
      if (word == "%") break;  // some collections end so
      if (word == "p") {
        header(words);
      } else {
        do take(word);
        while (words >> word);
        expect(form_ != Form::Bare || !open_, "a clause without 0 at its end", line);
      }
    }
    expect(!open_, "a last clause without 0 at its end", "");
    expect(form_ == Form::Bare || int64_t(found_.literals.size()) + found_.tautologies == promised_,
           "another number of clauses than the header's",
           fmt::format("{}; expected {}", found_.literals.size(), promised_));
    weigh();
    return std::move(found_);
  }

 private:
  enum class Form { Bare, Plain, Weighted };

  void expect(bool right, const char* wrong, const std::string& what) const {
    DEQ_CHECK(right, "{}, line {}: {}{}{}", source_, line_, wrong, what.empty() ? "" : ": ",
              printable(what));
  }

  int64_t number(const std::string& word, const char* wrong) const {
    int64_t value = 0;
    const char* end = word.data() + word.size();
    const auto [stopped, error] = std::from_chars(word.data(), end, value);
    expect(error == std::errc() && stopped == end, wrong, word);
    return value;
  }

  void header(std::istringstream& words) {
    expect(!headed_ && found_.literals.empty() && !open_, "a header behind clauses", "");
    std::string kind, variables, clauses, top;
    words >> kind >> variables >> clauses;
    expect(kind == "cnf" || kind == "wcnf", "a header that is neither 'p cnf' nor 'p wcnf'", kind);
    found_.variables = number(variables, "no number of variables");
    promised_ = number(clauses, "no number of clauses");
    expect(found_.variables >= 0 && found_.variables <= kMostVariables && promised_ >= 0,
           "sizes out of range", variables + " " + clauses);
    form_ = kind == "cnf" ? Form::Plain : Form::Weighted;
    if (form_ == Form::Weighted && words >> top) top_ = weight(top);
    headed_ = true;
  }

  double weight(const std::string& word) const {
    char* end = nullptr;
    const double value = std::strtod(word.c_str(), &end);
    expect(*end == 0 && value > 0 && std::isfinite(value), "no positive weight", word);
    return value;
  }

  void take(const std::string& word) {
    if (!open_) {
      open_ = true;
      literals_.clear();
      weight_ = 1;
      if (form_ != Form::Plain) {
        weight_ = form_ == Form::Bare && word == "h" ? HUGE_VAL : weight(word);
        return;
      }
    }
    const int64_t literal = number(word, "no literal");
    if (literal == 0) return finish();
    const int64_t variable = std::abs(literal);
    expect(variable <= (form_ == Form::Bare ? kMostVariables : found_.variables),
           "a literal beyond the variables", word);
    found_.variables = std::max(found_.variables, variable);
    literals_.push_back(literal);
  }

  void finish() {
    open_ = false;
    expect(!literals_.empty(), "an empty clause; expected literals", "");
    std::sort(literals_.begin(), literals_.end());
    literals_.erase(std::unique(literals_.begin(), literals_.end()), literals_.end());
    for (const int64_t literal : literals_) {
      if (literal > 0 && std::binary_search(literals_.begin(), literals_.end(), -literal)) {
        ++found_.tautologies;
        return;
      }
    }
    found_.literals.push_back(literals_);
    found_.weights.push_back(weight_ >= top_ ? HUGE_VAL : weight_);
  }

  void weigh() {
    found_.hard = 1;
    for (const double w : found_.weights) found_.hard += std::isfinite(w) ? w : 0;
    for (double& w : found_.weights) w = std::isfinite(w) ? w : found_.hard;
  }

  std::istringstream in_;
  const std::string& source_;
  int64_t line_ = 1, promised_ = 0;
  Form form_ = Form::Bare;
  bool headed_ = false, open_ = false;
  double top_ = HUGE_VAL, weight_ = 1;
  std::vector<int64_t> literals_;
  Clauses found_;
};

}  // namespace

at::Tensor Clauses::matrix() const {
  const int64_t m = int64_t(literals.size());
  const at::Tensor S = at::zeros({1 + variables, m}, at::kDouble);
  double* to = S.data_ptr<double>();
  for (int64_t j = 0; j < m; ++j) {
    const std::vector<int64_t>& clause = literals[size_t(j)];
    const double size = std::sqrt(weights[size_t(j)] / (4 * double(clause.size())));
    to[j] = -size;
    for (const int64_t literal : clause) to[std::abs(literal) * m + j] = literal > 0 ? size : -size;
  }
  return S;
}

Clauses read_clauses(const std::string& text, const std::string& source) {
  return Reader(text, source).read();
}

}  // namespace deq
