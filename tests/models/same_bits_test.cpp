// The same bits on any number of threads, whatever stands beside a text, and for its beginnings.
#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <random>

#include "deq/base/threads.h"
#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/models/language_model.h"
#include "deq/solvers/anderson.h"

namespace deq {
namespace {

using at::Tensor;

constexpr int64_t kWords = 61;

/// Threads for a scope.
class Threads {
 public:
  explicit Threads(int count)
      : before_(at::get_num_threads()), free_(use_free_threads_only(false)) {
    at::set_num_threads(count);
  }
  ~Threads() {
    at::set_num_threads(before_);
    use_free_threads_only(free_);
  }

 private:
  int before_;
  bool free_;
};

struct Sample {
  ModelOptions options;
  Tensor tokens;  // (B, T)

  explicit Sample(std::mt19937& random) {
    const auto pick = [&](int64_t low, int64_t high) {
      return std::uniform_int_distribution<int64_t>(low, high)(random);
    };
    const int64_t heads = pick(1, 3), width = 2 * heads * pick(3, 17);
    if (pick(0, 3) > 0) {
      options.cell = Transformer{.width = width, .heads = heads, .inner = pick(5, 90)};
    } else {
      options.cell = TrellisNet{.hidden = pick(3, 40), .output = width, .input = width};
    }
    EmbeddingOptions& embedding = options.embedding;
    if (pick(0, 1)) embedding.width = pick(8, 50);  // projected
    if (pick(0, 2) == 0) {
      embedding.cutoffs = {pick(5, 20), pick(21, 50)};
      embedding.div_val = pick(1, 2);
    }
    if (pick(0, 2) == 0) options.mixture.experts = pick(2, 4);
    options.initial = {.init_std = 0.3, .embedding_init_std = 0.3};
    tokens = at::randint(kWords, {pick(2, 5), pick(2, 30)}, at::kLong);
  }
};

struct Result {
  Tensor z, log_p, loss;  // (B, T, .), (B, T, V), (B, T)

  Result(LanguageModel& model, const Tensor& tokens) {
    ForwardOptions how;
    how.equilibrium.solver = Anderson{.scope = Scope::Causal};
    how.equilibrium.stop = {.max_steps = 12, .rel_tol = 1e-2};
    z = model.forward(tokens, {}, how).z;
    log_p = model.log_probabilities(z);
    loss = model.loss(z, tokens);
  }
  /// The first texts, their first positions.
  Result(const Result& all, int64_t texts, int64_t positions) {
    const auto part = [&](const Tensor& t) {
      return t.narrow(0, 0, texts).narrow(1, 0, positions);
    };
    z = part(all.z);
    log_p = part(all.log_p);
    loss = part(all.loss);
  }
  void expect(const Result& other) const {
    EXPECT_TRUE(at::equal(z, other.z)) << "states";
    EXPECT_TRUE(at::equal(log_p, other.log_p)) << "log-probabilities";
    EXPECT_TRUE(at::equal(loss, other.loss)) << "losses";
  }
};

TEST(SameBits, OnAnyNumberOfThreadsBesideAnyTextAndForBeginnings) {
  std::mt19937 random(3);
  at::manual_seed(3);
  c10::NoGradGuard no_tape;
  for (int trial = 0; trial < 40; ++trial) {
    const Sample s(random);
    LanguageModel model(s.options, kWords);
    model.eval();
    const int64_t B = s.tokens.size(0), T = s.tokens.size(1);
    SCOPED_TRACE(fmt::format("trial {}: {} texts of {}, embedding {}, {} clusters, {} experts",
                             trial, B, T, s.options.embedding.width,
                             s.options.embedding.cutoffs.size() + 1, s.options.mixture.experts));
    const Result one = [&] {
      const Threads threads(1);
      return Result(model, s.tokens);
    }();
    for (int count = 2; count <= 7; ++count) {
      const Threads threads(count);
      SCOPED_TRACE(fmt::format("{} threads", count));
      one.expect(Result(model, s.tokens));
    }
    Result(one, 1, T).expect(Result(model, s.tokens.narrow(0, 0, 1)));
    for (const int64_t length : {int64_t(1), T / 2, T - 1}) {
      if (length < 1) continue;
      SCOPED_TRACE(fmt::format("the first {}", length));
      Result(one, B, length).expect(Result(model, s.tokens.narrow(1, 0, length)));
    }
  }
}

// Few enough that each thread's share does not end with a vector.
TEST(SameBits, SinusoidsOnAnyNumberOfThreads) {
  for (const auto type : {at::kFloat, at::kDouble}) {
    for (const int64_t F : {1, 3, 8, 37, 96}) {
      const Tensor frequency = at::rand({F}, type);
      for (const int64_t count : {1, 7, 500, 3001}) {
        const Tensor one = [&] {
          const Threads scope(1);
          return sinusoids(count, count, frequency);
        }();
        for (int threads = 2; threads <= 7; ++threads) {
          const Threads scope(threads);
          EXPECT_TRUE(at::equal(sinusoids(count, count, frequency), one));
          if (count < 7) continue;
          EXPECT_TRUE(
              at::equal(sinusoids(count / 2, 3, frequency), one.narrow(0, count - count / 2, 3)));
        }
        const Tensor angle = (double(count) - at::arange(count, frequency.options())).unsqueeze(1) *
                             frequency.unsqueeze(0);
        EXPECT_TRUE(at::allclose(one, at::cat({angle.sin(), angle.cos()}, 1), 1e-5, 1e-6));
      }
    }
  }
}

}  // namespace
}  // namespace deq
