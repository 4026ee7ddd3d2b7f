// Texts with holes: what is hidden is what stood there, as much of it as was said, in holes of the
// lengths that were said; what a person writes is read, and every mistake is one line.
#include "deq/tasks/masked.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>

#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/models/model.h"
#include "deq/solvers/anderson.h"
#include "deq/tasks/tasks.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using at::Tensor;
using testing::error_of;
using testing::Scratch;
using testing::spill;

/// 26 letters in turn, so that each tells the next, 20,000 of them.
std::string alphabet() {
  std::string text;
  for (int i = 0; i < 20000; ++i) text += char('a' + i % 26);
  return text;
}

struct Loaded {
  Scratch scratch;
  Masked task;
  Corpus corpus;
  explicit Loaded(Masked options = {}) : task(std::move(options)) {
    spill(scratch / "text.txt", alphabet());
    corpus = task.load(scratch / "text.txt");
  }
};

/// Lengths of runs of holes, and how many holes in all.
std::map<int64_t, int64_t> runs_of(const Tensor& tokens, int64_t hole) {
  std::map<int64_t, int64_t> runs;
  for (int64_t s = 0; s < tokens.size(0); ++s) {
    int64_t run = 0;
    for (int64_t t = 0; t <= tokens.size(1); ++t) {
      const bool is_hole = t < tokens.size(1) && tokens[s][t].item<int64_t>() == hole;
      if (!is_hole && run > 0) ++runs[run];
      run = is_hole ? run + 1 : 0;
    }
  }
  return runs;
}

TEST(Masked, WhatIsHiddenIsWhatStoodThere) {
  const Loaded made({.problems = {.train = 300, .valid = 50, .test = 50}});
  const int64_t hole = hole_of(made.corpus.vocabulary);
  EXPECT_EQ(made.corpus.vocabulary.size(), 27);
  EXPECT_EQ(made.corpus.answers->size(), 26);
  for (const std::string& name : made.corpus.splits()) {
    if (name == "next") continue;  // below
    const Split split = made.corpus.split(name);
    const Tensor holes = split.tokens.eq(hole);
    EXPECT_TRUE(at::equal(split.targets.ge(0), holes)) << name << ": holes alone are scored";
    const Tensor whole = at::where(holes, split.targets, split.tokens);
    for (int64_t s = 0; s < whole.size(0); ++s) {
      for (int64_t t = 1; t < whole.size(1); ++t) {
        const char before = made.corpus.answers->token(whole[s][t - 1].item<int64_t>())[0];
        const char now = made.corpus.answers->token(whole[s][t].item<int64_t>())[0];
        ASSERT_EQ(now, before == 'z' ? 'a' : before + 1) << name;
      }
    }
  }
}

TEST(Masked, HolesAreAsManyAndAsLongAsSaid) {
  const Loaded made({.length = 200,
                     .least = 0.2,
                     .most = 0.4,
                     .holes = {1, 4, 16},
                     .problems = {.train = 400, .test = 60}});
  const int64_t hole = hole_of(made.corpus.vocabulary);
  const Tensor share =
      made.corpus.train.tokens.eq(hole).to(at::kDouble).mean(1);  // the last hole may be too long
  EXPECT_GE(share.min().item<double>(), 0.2 - 1e-9);
  EXPECT_LE(share.max().item<double>(), 0.4 + 16.0 / 200);
  EXPECT_NEAR(share.mean().item<double>(), 0.3 + 4.0 / 200, 0.02);
  for (const auto& [length, count] : runs_of(made.corpus.train.tokens, hole))
    EXPECT_LE(length, 16) << count;
  const Loaded shorter({.length = 200, .longest = 3, .problems = {.train = 60}});
  const auto runs = runs_of(shorter.corpus.train.tokens, hole);
  EXPECT_EQ(runs.begin()->first, 1);
  EXPECT_EQ(runs.rbegin()->first, 3);
  for (const int64_t length : {1, 4, 16}) {
    const Split split = made.corpus.split(std::to_string(length));
    const auto runs = runs_of(split.tokens, hole);
    ASSERT_EQ(runs.size(), 1u);
    EXPECT_EQ(runs.begin()->first, length);
    EXPECT_EQ(runs.begin()->second, 60 * ((30 + length - 1) / length)) << "15% of each";
  }
}

/// The prefix of a problem, checked: the alphabet goes on, one hole follows and nothing else.
int64_t prefix_of(const Corpus& corpus, const Split& split, int64_t s) {
  const int64_t hole = hole_of(corpus.vocabulary), prefix = split.extents[s][0].item<int64_t>() - 1;
  const auto at_place = [&](const Tensor& ids, int64_t t) { return ids[s][t].item<int64_t>(); };
  EXPECT_EQ(at_place(split.tokens, prefix), hole);
  EXPECT_EQ(split.targets[s].ge(0).sum().item<int64_t>(), 1);
  for (int64_t t = 1; t <= prefix; ++t) {
    const int64_t id = at_place(t == prefix ? split.targets : split.tokens, t);
    const char before = corpus.answers->token(at_place(split.tokens, t - 1))[0];
    EXPECT_EQ(corpus.answers->token(id)[0], before == 'z' ? 'a' : before + 1);
  }
  EXPECT_TRUE(split.tokens[s].slice(0, prefix + 1).eq(hole).all().item<bool>());
  return prefix;
}

TEST(Masked, PrefixesEndInTheHoleThatIsAsked) {
  const Loaded made(
      {.length = 20, .ends = 0.5, .problems = {.train = 4096, .valid = 256, .test = 300}});
  const Split next = made.corpus.split("next");
  ASSERT_EQ(next.tokens.size(0), 300);
  for (int64_t s = 0; s < 300; ++s) prefix_of(made.corpus, next, s);
  const Split& train = made.corpus.train;
  std::map<int64_t, int64_t> lengths;  // of prefixes
  for (int64_t s = 0; s < 2048; s += 16) ++lengths[prefix_of(made.corpus, train, s)];
  EXPECT_EQ(lengths.begin()->first, 1);
  EXPECT_EQ(lengths.rbegin()->first, 19);
  EXPECT_EQ(lengths.size(), 19u);
  EXPECT_TRUE(train.extents.slice(0, 2048).eq(20).all().item<bool>()) << "the others have holes";
  EXPECT_GT(train.targets.slice(0, 2048).ge(0).sum(1).min().item<int64_t>(), 2);
  EXPECT_TRUE(at::equal(made.corpus.draw(1).extents, train.extents)) << "as many batches an epoch";
  EXPECT_FALSE(at::equal(made.corpus.draw(1).tokens, train.tokens));
  EXPECT_EQ(made.corpus.valid.extents.lt(20).sum().item<int64_t>(), 128);
  EXPECT_FALSE(made.corpus.split("4").extents.defined());
  const Loaded all({.length = 20, .ends = 1, .problems = {.train = 128}});
  for (int64_t s = 0; s < 128; ++s) EXPECT_GT(prefix_of(all.corpus, all.corpus.train, s), 0);
  const Loaded none({.length = 20});
  EXPECT_FALSE(none.corpus.train.extents.defined());
}

// Two texts that differ in one character that is held out: what is asked for it does not know it.
TEST(Masked, NoModelSeesWhatItIsToTell) {
  Scratch scratch;
  std::string text = alphabet();
  spill(scratch / "one.txt", text);
  constexpr size_t kChanged = 19500;
  text[kChanged] = text[kChanged] == 'q' ? 'r' : 'q';
  spill(scratch / "other.txt", text);
  const Masked task{.length = 16, .ends = 0.5, .problems = {.train = 64, .test = 4000}};
  const Corpus one = task.load(scratch / "one.txt"), other = task.load(scratch / "other.txt");
  for (const CellOptions& cell :
       {CellOptions(Transformer{.width = 8, .heads = 2, .inner = 8, .causal = false}),
        CellOptions(TrellisNet{.hidden = 4, .output = 4, .causal = false})}) {
    ModelOptions options{.cell = cell, .initial = {.init_std = 0.3, .embedding_init_std = 0.5}};
    options.embedding.tie_weights = false;
    Model model(options, {one.vocabulary.size(), one.answers->size()});
    model.eval();
    const c10::NoGradGuard no_tape;
    const ForwardOptions how{.equilibrium = {.solver = Anderson{.scope = Scope::Sample}}};
    for (const char* name : {"1", "next"}) {
      const Split a = one.split(name), b = other.split(name);
      const Tensor told = a.targets.ne(b.targets).any(1).nonzero().flatten();
      ASSERT_GT(told.size(0), 0) << name;
      for (int64_t i = 0; i < told.size(0); ++i) {
        const int64_t s = told[i].item<int64_t>();
        const int64_t n = a.extents.defined() ? a.extents[s][0].item<int64_t>() : 16;
        const auto answers = [&](const Split& split) {
          const Tensor tokens = split.tokens.narrow(0, s, 1).narrow(1, 0, n);
          return model.log_probabilities(model.forward(tokens, {}, how).z);
        };
        EXPECT_TRUE(at::equal(answers(a), answers(b))) << name << ", problem " << s;
      }
    }
  }
}

TEST(Masked, EpochsDifferAndSeedsRepeat) {
  const auto train = [](int64_t seed, int64_t pool) {
    return Loaded({.problems = {.train = 20, .pool = pool, .seed = seed}}).corpus;
  };
  const Corpus one = train(1, 0), same = train(1, 0), other = train(2, 0), pool = train(1, 7);
  EXPECT_TRUE(at::equal(one.train.tokens, same.train.tokens));
  EXPECT_TRUE(at::equal(one.test.tokens, same.test.tokens));
  EXPECT_FALSE(at::equal(one.train.tokens, other.train.tokens));
  EXPECT_FALSE(at::equal(one.train.tokens, one.draw(1).tokens));
  EXPECT_TRUE(at::equal(one.train.tokens, one.draw(0).tokens));
  EXPECT_FALSE(pool.draw);
  EXPECT_EQ(pool.train.tokens.size(0), 7);
}

TEST(Masked, TheEndOfTheTextIsHeldOut) {
  Scratch scratch;
  // b and c are in the training split too, once, so that they are known.
  spill(scratch / "text.txt",
        "bc" + std::string(8998, 'a') + std::string(500, 'b') + std::string(500, 'c'));
  const Corpus corpus = Masked{.length = 50}.load(scratch / "text.txt");
  const auto only = [&](const Split& split, const char* symbol) {
    const int64_t id = *corpus.answers->find(symbol);
    return split.targets.eq(id).logical_or(split.targets.lt(0)).all().item<bool>();
  };
  EXPECT_TRUE(only(corpus.valid, "b"));
  EXPECT_TRUE(only(corpus.test, "c"));
  EXPECT_TRUE(only(corpus.split("4"), "c"));
}

TEST(Masked, IsReadAndShownAsAPersonWritesIt) {
  const Loaded made;
  const Vocabulary &inputs = made.corpus.vocabulary, &answers = *made.corpus.answers;
  const auto problems = made.task.read_text("ab__e\n\nx_z\n", "t.txt", inputs);
  ASSERT_EQ(problems.size(), 2u);
  EXPECT_EQ(problems[1].line, 3);
  const Tensor& first = problems[0].tokens;
  EXPECT_EQ(first[2].item<int64_t>(), hole_of(inputs));
  EXPECT_EQ(made.task.show({first, {}, inputs, answers}), "ab__e");
  Tensor answer = at::full_like(first, -1);
  answer[2] = *answers.find("c");
  EXPECT_EQ(made.task.show({first, answer, inputs, answers}), "abc_e");
}

TEST(Masked, BadInputIsOneLine) {
  const Loaded made;
  const auto reading = [&](const std::string& text) {
    return error_of([&] { made.task.read_text(text, "t.txt", made.corpus.vocabulary); });
  };
  EXPECT_SAYS(reading("ab_\naB_\n"), "t.txt, line 2: 'B' is not among the 26 characters");
  EXPECT_SAYS(reading("ab_\nabc\n"), "t.txt, line 2: no hole");
  EXPECT_SAYS(reading("\n"), "no text");
  const auto loading = [&](Masked task) {
    return error_of([&] { task.load(made.scratch / "text.txt"); });
  };
  EXPECT_SAYS(loading({.length = 1500}), "the valid split has 1000 characters");
  EXPECT_SAYS(loading({.least = 0.6, .most = 0.5}), "task-least = 0.6");
  EXPECT_SAYS(loading({.length = 8, .holes = {9}}), "task-holes = 9");
  EXPECT_SAYS(loading({.ends = 1.5}), "ends = 1.5");
  EXPECT_SAYS(loading({.longest = 0}), "longest = 0");
  EXPECT_SAYS(error_of([] { hole_of(Vocabulary(Unit::Symbol, {"a"})); }), "<hole>");
}

}  // namespace
}  // namespace deq
