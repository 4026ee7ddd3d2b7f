// Training with another number of threads is the same training: so it may change on a busy machine.
#include "deq/base/threads.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"
#include "deq/tasks/bytes.h"
#include "deq/train/trainer.h"
#include "tests/base/scratch.h"
#include "tests/train/small_run.h"

namespace deq {
namespace {

NamedTensors trained(const TrainOptions& options, const Corpus& corpus, int threads) {
  const int before = at::get_num_threads();
  const bool free_only = use_free_threads_only(false);
  at::set_num_threads(threads);
  Trainer trainer(options, corpus);
  for (int step = 0; step < 3; ++step) trainer.step();
  at::set_num_threads(before);
  use_free_threads_only(free_only);
  return named_tensors(trainer.model());
}

TEST(Trainer, GivesTheSameBitsOnAnyNumberOfThreads) {
  const testing::Scratch scratch;
  testing::spill(scratch / "text.txt", testing::small_text());
  const Corpus corpus = Bytes{}.load(scratch / "text.txt");
  TrainOptions options = testing::small_options();
  options.loop.batch.length = 29;
  options.loop.batch.batch = 7;
  const Transformer transformer{
      .width = 120, .heads = 3, .inner = 401, .dropout = {.hidden = 0.1, .attention = 0.1}};
  const TrellisNet trellis{.hidden = 75, .output = 60, .dropout = {.hidden = 0.1, .weight = 0.1}};
  for (const CellOptions& cell : {CellOptions(transformer), CellOptions(trellis)}) {
    options.model.cell = cell;
    const NamedTensors one = trained(options, corpus, 1);
    for (const int threads : {2, 3, 5}) {
      const NamedTensors several = trained(options, corpus, threads);
      for (const auto& [name, tensor] : one)
        EXPECT_TRUE(at::equal(tensor, several.at(name))) << name << ", " << threads << " threads";
    }
  }
}

}  // namespace
}  // namespace deq
