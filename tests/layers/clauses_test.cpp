#include "deq/layers/clauses.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "deq/base/error.h"

namespace deq {
namespace {

TEST(Clauses, PlainForm) {
  const Clauses c = read_clauses(
      "c a comment\np cnf 4 4\n1 -2\n 0 3 0\nc between\n-1 -1 4 0\n2 -2 1 0\n%\n0\n", "rules");
  EXPECT_EQ(c.variables, 4);
  EXPECT_EQ(c.tautologies, 1);
  const std::vector<std::vector<int64_t>> wanted{{-2, 1}, {3}, {-1, 4}};
  EXPECT_EQ(c.literals, wanted);
  const at::Tensor S = c.matrix();
  EXPECT_EQ(S.size(0), 5);
  EXPECT_EQ(S.size(1), 3);
  EXPECT_DOUBLE_EQ(S[0][0].item<double>(), -std::sqrt(1.0 / 8));
  EXPECT_DOUBLE_EQ(S[1][0].item<double>(), std::sqrt(1.0 / 8));
  EXPECT_DOUBLE_EQ(S[2][0].item<double>(), -std::sqrt(1.0 / 8));
  EXPECT_DOUBLE_EQ(S[3][1].item<double>(), 0.5);
}

TEST(Clauses, WeightedForms) {
  const Clauses old = read_clauses("p wcnf 3 3 10\n10 1 2 0\n2.5 -3 0\n4 1 0\n", "old");
  const Clauses now = read_clauses("h 1 2 0\n2.5 -3 0\n4 1 0\n", "new");
  const std::vector<double> wanted{7.5, 2.5, 4};
  EXPECT_EQ(old.weights, wanted);
  EXPECT_EQ(now.weights, wanted);
  EXPECT_EQ(now.variables, 3);
  EXPECT_EQ(old.hard, 7.5);
  EXPECT_TRUE(at::equal(old.matrix(), now.matrix()));
  EXPECT_DOUBLE_EQ(old.matrix()[0][2].item<double>(), -1);
}

TEST(Clauses, ErrorsNameTheLine) {
  const std::pair<const char*, const char*> cases[] = {
      {"p cnf 3 1\n1 4 0\n", "rules, line 2: a literal beyond the variables: 4"},
      {"p cnf 3 1\n1 x 0\n", "rules, line 2: no literal: x"},
      {"p cnf 3 2\n1 0\n0\n", "rules, line 3: an empty clause; expected literals"},
      {"p cnf 3 1\n1 2\n", "rules, line 3: a last clause without 0 at its end"},
      {"p cnf 3 2\n1 0\n",
       "rules, line 3: another number of clauses than the header's: 1; expected 2"},
      {"p dnf 3 2\n", "rules, line 1: a header that is neither 'p cnf' nor 'p wcnf': dnf"},
      {"p cnf three 2\n", "rules, line 1: no number of variables: three"},
      {"p cnf 3\n", "rules, line 1: no number of clauses"},
      {"p wcnf 3 1 9\n-2 1 0\n", "rules, line 2: no positive weight: -2"},
      {"h 1 2 0\n3 1\n", "rules, line 2: a clause without 0 at its end: 3 1"},
      {"p cnf 3 1\n1 0\np cnf 3 1\n", "rules, line 3: a header behind clauses"},
      {"p cnf 3 1\n99999999999999999999 0\n", "rules, line 2: no literal: 99999999999999999999"},
  };
  for (const auto& [text, wanted] : cases) {
    try {
      read_clauses(text, "rules");
      ADD_FAILURE() << "no error: " << wanted;
    } catch (const Error& error) {
      EXPECT_STREQ(error.what(), wanted);
    }
  }
  EXPECT_EQ(read_clauses("", "nothing").variables, 0);
}

}  // namespace
}  // namespace deq
