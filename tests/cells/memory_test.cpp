// Cells with a memory beside plain loops over numbers, and what is seen of the memory.
#include <ATen/ATen.h>
#include <c10/core/GradMode.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "deq/cells/ntm.h"
#include "deq/cells/stack_rnn.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;
using testing::error_of;

using Vector = std::vector<double>;

Vector as_vector(const Tensor& tensor) {
  const Tensor held = tensor.detach().to(at::kDouble).contiguous();
  return {held.data_ptr<double>(), held.data_ptr<double>() + held.numel()};
}

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double softplus(double x) { return std::log1p(std::exp(x)); }
Vector softmax(Vector x) {
  double sum = 0;
  for (double& each : x) sum += each = std::exp(each);
  for (double& each : x) each /= sum;
  return x;
}

/// A cell's linear maps, by name.
class Maps {
 public:
  explicit Maps(const Cell& cell) {
    for (const auto& item : cell.named_parameters()) parameters_[item.key()] = item.value();
  }
  Vector operator()(const std::string& name, const Vector& x) const {
    const Tensor weight = parameters_.at(name + ".weight");
    const Vector w = as_vector(weight);
    Vector y(size_t(weight.size(0)), 0);
    if (parameters_.count(name + ".bias")) y = as_vector(parameters_.at(name + ".bias"));
    EXPECT_EQ(int64_t(x.size()), weight.size(1));
    for (size_t i = 0; i < y.size(); ++i)
      for (size_t j = 0; j < x.size(); ++j) y[i] += w[i * x.size() + j] * x[j];
    return y;
  }

 private:
  std::map<std::string, Tensor> parameters_;
};

Vector plus(Vector a, const Vector& b) {
  for (size_t i = 0; i < a.size(); ++i) a[i] += b[i];
  return a;
}
Vector tanh_of(Vector a) {
  for (double& each : a) each = std::tanh(each);
  return a;
}
Vector join_of(Vector a, const Vector& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

template <class CellType, class Options>
std::shared_ptr<CellType> random_cell(const Options& options) {
  at::manual_seed(3);
  auto cell = std::make_shared<CellType>(options);
  cell->initialise(0.7);
  c10::NoGradGuard no_tape;
  for (const auto& item : cell->named_parameters()) {
    if (item.key().ends_with("bias")) item.value().normal_(0, 0.7);
  }
  cell->to(at::kDouble);
  cell->eval();
  return cell;
}

constexpr int64_t T = 12;

void expect_near(const Tensor& found, const std::vector<Vector>& expected) {
  for (size_t t = 0; t < expected.size(); ++t)
    for (size_t i = 0; i < expected[t].size(); ++i)
      ASSERT_NEAR(found[int64_t(t)][int64_t(i)].item<double>(), expected[t][i], 1e-12) << t;
}

TEST(Memory, StacksArePushedAndPopped) {
  const StackRnn options{.width = 5, .stacks = 2, .stack_depth = 4, .stack_width = 3, .reads = 2};
  const auto cell = random_cell<StackRnnCell>(options);
  const Maps maps(*cell);
  const Tensor z = at::randn({1, T, 5}, at::kDouble);
  Vector h(5, 0);
  std::vector<std::vector<Vector>> stacks(2, std::vector<Vector>(4, Vector(3, 0)));
  std::vector<Vector> expected;
  std::vector<std::vector<std::string>> actions(2);
  for (int64_t t = 0; t < T; ++t) {
    Vector top;
    for (const auto& stack : stacks)
      for (size_t i = 0; i < 2; ++i) top = join_of(top, stack[i]);
    h = tanh_of(
        plus(plus(maps("input", as_vector(z[0][t])), maps("hidden", h)), maps("read", top)));
    expected.push_back(h);
    const Vector asked = maps("action", h), pushed = tanh_of(maps("push", h));
    for (size_t k = 0; k < 2; ++k) {
      const Vector a = softmax({asked[3 * k], asked[3 * k + 1], asked[3 * k + 2]});
      const auto best = std::max_element(a.begin(), a.end()) - a.begin();
      actions[k].push_back(std::vector<std::string>{"push", "pop", "keep"}[size_t(best)]);
      const auto old = stacks[k];
      for (size_t i = 0; i < 4; ++i) {
        for (size_t j = 0; j < 3; ++j) {
          const double above = i == 0 ? pushed[3 * k + j] : old[i - 1][j],
                       below = i == 3 ? 0 : old[i + 1][j];
          stacks[k][i][j] = a[0] * above + a[1] * below + a[2] * old[i][j];
        }
      }
    }
  }
  expect_near(cell->bind(z, {})(z)[0], expected);
  const auto tracks = cell->look_at(z);
  ASSERT_EQ(tracks.size(), 2u);
  for (size_t k = 0; k < 2; ++k) {
    EXPECT_EQ(tracks[k].name, fmt::format("stack {}", k + 1));
    EXPECT_EQ(tracks[k].at, actions[k]);
  }
}

/// One head's place, of N slots, in plain loops.
Vector moved(const Vector& asked, const Vector& before, const std::vector<Vector>& memory,
             int64_t shift) {
  const size_t M = memory[0].size(), N = memory.size();
  double key_length = 0;
  Vector key(M);
  for (size_t j = 0; j < M; ++j) {
    key[j] = std::tanh(asked[j]);
    key_length += key[j] * key[j];
  }
  Vector content(N);
  for (size_t i = 0; i < N; ++i) {
    double dot = 0, length = 0;
    for (size_t j = 0; j < M; ++j) {
      dot += key[j] * memory[i][j];
      length += memory[i][j] * memory[i][j];
    }
    content[i] = softplus(asked[M]) * dot / (std::sqrt(key_length * length) + 1e-16);
  }
  content = softmax(content);
  const double gate = sigmoid(asked[M + 1]), sharpness = 1 + softplus(asked[M + 2]);
  const Vector shifts = softmax({asked.begin() + int64_t(M) + 3, asked.end()});
  Vector place(N, 0);
  double sum = 0;
  for (size_t i = 0; i < N; ++i) {
    for (int64_t s = -shift; s <= shift; ++s) {  // a shift of s moves what is at i - s to i
      const size_t from = size_t((int64_t(i) - s + int64_t(N)) % int64_t(N));
      place[i] += shifts[size_t(s + shift)] * (gate * content[from] + (1 - gate) * before[from]);
    }
    sum += place[i] = std::pow(place[i] + 1e-16, sharpness);
  }
  for (double& each : place) each /= sum;
  return place;
}

class NtmTest : public ::testing::TestWithParam<Controller> {};

TEST_P(NtmTest, HeadsFindReadAndWrite) {
  const bool recurrent = GetParam() == Controller::Lstm;
  const Ntm options{.width = 5,
                    .controller = GetParam(),
                    .slots = 7,
                    .slot_width = 3,
                    .read_heads = 2,
                    .write_heads = 2,
                    .shift = 2};
  const auto cell = random_cell<NtmCell>(options);
  const Maps maps(*cell);
  const Tensor z = at::randn({1, T, 5}, at::kDouble);
  Vector h(5, 0), c(5, 0), read(6, 0);
  std::vector<Vector> memory(7, Vector(3, 1e-6)), places(4, Vector(7, 0)), expected;
  for (Vector& place : places) place[0] = 1;
  std::vector<std::vector<std::string>> at(4);
  for (int64_t t = 0; t < T; ++t) {
    const Vector seen = join_of(as_vector(z[0][t]), read);
    if (recurrent) {
      const Vector gates = plus(maps("input", seen), maps("hidden", h));
      for (size_t i = 0; i < 5; ++i) {  // input, forget, cell, output
        c[i] = sigmoid(gates[5 + i]) * c[i] + sigmoid(gates[i]) * std::tanh(gates[10 + i]);
        h[i] = sigmoid(gates[15 + i]) * std::tanh(c[i]);
      }
    } else {
      h = tanh_of(maps("input", seen));
    }
    const Vector asked = maps("heads", h), what = maps("write", h);
    const size_t own = asked.size() / 4;
    const auto of_head = [&](size_t head) {
      return Vector(asked.begin() + int64_t(head * own), asked.begin() + int64_t((head + 1) * own));
    };
    for (size_t head : {0, 1}) places[head] = moved(of_head(head), places[head], memory, 2);
    for (size_t head : {0, 1}) {
      for (size_t i = 0; i < 7; ++i) {
        for (size_t j = 0; j < 3; ++j) {
          memory[i][j] *= 1 - places[head][i] * sigmoid(what[6 * head + j]);
          memory[i][j] += places[head][i] * std::tanh(what[6 * head + 3 + j]);
        }
      }
    }
    read.assign(6, 0);
    for (size_t head : {2, 3}) {
      places[head] = moved(of_head(head), places[head], memory, 2);
      for (size_t i = 0; i < 7; ++i)
        for (size_t j = 0; j < 3; ++j) read[3 * (head - 2) + j] += places[head][i] * memory[i][j];
    }
    for (size_t head = 0; head < 4; ++head) {
      const auto best = std::max_element(places[head].begin(), places[head].end());
      at[head].push_back(std::to_string(best - places[head].begin()));
    }
    expected.push_back(maps("output", join_of(h, read)));
  }
  expect_near(cell->bind(z, {})(z)[0], expected);
  const auto tracks = cell->look_at(z);
  ASSERT_EQ(tracks.size(), 4u);
  const std::vector<std::string> names{"write 1", "write 2", "read 1", "read 2"};
  for (size_t head = 0; head < 4; ++head) {
    EXPECT_EQ(tracks[head].name, names[head]);
    EXPECT_EQ(tracks[head].at, at[head]);
  }
}

INSTANTIATE_TEST_SUITE_P(Controllers, NtmTest,
                         ::testing::Values(Controller::Lstm, Controller::Feedforward));

TEST(Memory, BadOptionsAndInputsAreOneLine) {
  EXPECT_SAYS(error_of([] { StackRnnCell({.stack_depth = 3, .reads = 4}); }),
              "cell-reads = 4: a stack has 3 entries; expected at most cell-stack-depth");
  EXPECT_SAYS(error_of([] { NtmCell({.slots = 6, .shift = 3}); }),
              "cell-shift = 3: the memory has 6 slots; expected fewer than half");
  EXPECT_SAYS(error_of([] { NtmCell({.slots = 0}); }), "slots");
  EXPECT_SAYS(error_of([] {
                NtmCell({.width = 6}).look_at(at::zeros({2, 3, 6}));
              }),
              "expected (1, positions, 6)");
  const auto cell = std::make_shared<NtmCell>(Ntm{.width = 6, .slots = 5});
  const Tensor x = at::zeros({1, 3, 6});
  EXPECT_SAYS(error_of([&] { cell->bind(x, {at::zeros({1, 2, 9}), {}}); }), "NtmCell");
}

TEST(Memory, FeaturesAreDroppedForAllPositions) {
  const auto cell = random_cell<StackRnnCell>(StackRnn{.width = 64, .dropout = 0.25});
  const Tensor z = at::randn({3, 5, 64}, at::kDouble), whole = cell->bind(z, {})(z);
  cell->train();
  const Tensor dropped = cell->bind(z, {})(z), kept = dropped.ne(0);
  EXPECT_TRUE(at::equal(kept, kept.narrow(1, 0, 1).expand_as(kept)));
  EXPECT_NEAR(kept.to(at::kDouble).mean().item<double>(), 0.75, 0.13);
  EXPECT_TRUE(at::allclose(dropped, at::where(kept, whole / 0.75, at::zeros_like(whole))));
}

TEST(Memory, OneHeadHasNoNumber) {
  EXPECT_EQ(NtmCell({.width = 4}).look_at(at::zeros({1, 1, 4}))[1].name, "read");
  EXPECT_EQ(StackRnnCell({.width = 4}).look_at(at::zeros({1, 1, 4}))[0].name, "stack");
}

}  // namespace
}  // namespace deq
