// Images from files in the IDX format, which the tests write themselves; and MNIST, where it is.
#include "deq/tasks/images.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <set>

#include "deq/tasks/tasks.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;
using testing::Scratch;
using testing::spill;

namespace fs = std::filesystem;

/// A file of bytes, of these sizes.
std::string idx(const std::vector<int64_t>& sizes, const std::string& bytes) {
  std::string file{'\0', '\0', '\x08', char(sizes.size())};
  for (const int64_t size : sizes)
    for (int shift = 24; shift >= 0; shift -= 8) file.push_back(char(size >> shift & 0xFF));
  return file + bytes;
}

/// Pixel (r, c) of image s.
int64_t pixel(int64_t s, int64_t r, int64_t c) { return (31 * s + 7 * r + c) % 256; }

/// `train` and `test` images of 3 x 4, with labels s mod 3.
void write_images(const fs::path& folder, int64_t train, int64_t test) {
  for (const auto& [set, count] : {std::pair{"train", train}, std::pair{"t10k", test}}) {
    std::string images, labels;
    for (int64_t s = 0; s < count; ++s) {
      labels.push_back(char(s % 3));
      for (int64_t r = 0; r < 3; ++r)
        for (int64_t c = 0; c < 4; ++c) images.push_back(char(pixel(s, r, c)));
    }
    spill(folder / fmt::format("{}-images-idx3-ubyte", set), idx({count, 3, 4}, images));
    spill(folder / fmt::format("{}-labels-idx1-ubyte", set), idx({count}, labels));
  }
}

class ImagesTest : public ::testing::Test {
 protected:
  ImagesTest() { write_images(scratch.folder(), 20, 6); }
  std::string says(const Images& task) {
    return error_of([&] { task.load(scratch.folder()); });
  }
  Scratch scratch;
};

TEST_F(ImagesTest, AreLaidOutAsAsked) {
  for (const ImageOrder order :
       {ImageOrder::Grid, ImageOrder::Rows, ImageOrder::Pixels, ImageOrder::Permuted}) {
    const Images task{.order = order, .valid = 5};
    const Corpus corpus = task.load(scratch.folder());
    const bool flat = order == ImageOrder::Pixels || order == ImageOrder::Permuted;
    ASSERT_EQ(corpus.train.tokens.sizes().vec(),
              flat ? (std::vector<int64_t>{15, 12}) : (std::vector<int64_t>{15, 3, 4}));
    EXPECT_EQ(corpus.valid.tokens.size(0), 5);
    EXPECT_EQ(corpus.test.tokens.size(0), 6);
    EXPECT_EQ(corpus.vocabulary.size(), 256);
    EXPECT_EQ(corpus.answer_vocabulary().size(), 3);
    EXPECT_EQ(Task(task)->dimensions(), order == ImageOrder::Grid ? 2 : 1);
    EXPECT_EQ(Task(task)->reading(), order == ImageOrder::Rows ? "rows" : "values");
    std::vector<int64_t> place(12, -1);  // where the pixels of image 3 stand, which all differ
    for (const auto& [split, first] : {std::pair<const Split&, int64_t>(corpus.train, 0),
                                       {corpus.valid, 15},
                                       {corpus.test, 0}}) {
      const at::Tensor tokens = split.tokens.flatten(1), targets = split.targets.flatten(1);
      for (int64_t s = 0; s < tokens.size(0); ++s) {
        std::vector<int64_t> own;
        for (int64_t r = 0; r < 3; ++r)
          for (int64_t c = 0; c < 4; ++c) own.push_back(pixel(first + s, r, c));
        for (int64_t i = 0; i < 12; ++i) {
          const int64_t token = tokens[s][i].item<int64_t>();
          if (order != ImageOrder::Permuted) {
            ASSERT_EQ(token, own[size_t(i)]);
          } else {
            const auto found = int64_t(std::find(own.begin(), own.end(), token) - own.begin());
            int64_t& known = place[size_t(i)];
            if (known < 0) known = found;
            ASSERT_EQ(found, known) << "one order for all";
          }
          EXPECT_EQ(targets[s][i].item<int64_t>(), i == 11 ? (first + s) % 3 : -1);
        }
      }
    }
    if (order != ImageOrder::Permuted) continue;
    EXPECT_FALSE(std::is_sorted(place.begin(), place.end()));
    std::sort(place.begin(), place.end());
    for (int64_t i = 0; i < 12; ++i) EXPECT_EQ(place[size_t(i)], i);
    Images other = task;
    other.seed = 2;
    EXPECT_FALSE(at::equal(other.load(scratch.folder()).test.tokens, corpus.test.tokens));
  }
}

TEST_F(ImagesTest, AreMovedAnewInEachEpoch) {
  const Images still{.valid = 5, .train = 10}, task{.valid = 5, .train = 10, .moved = 1};
  const at::Tensor images = still.load(scratch.folder()).train.tokens;
  EXPECT_EQ(images.size(0), 10);
  EXPECT_FALSE(still.load(scratch.folder()).draw);
  const Corpus corpus = task.load(scratch.folder());
  EXPECT_TRUE(at::equal(corpus.train.tokens, corpus.draw(0).tokens));
  EXPECT_FALSE(at::equal(corpus.draw(0).tokens, corpus.draw(1).tokens));
  EXPECT_TRUE(at::equal(corpus.valid.tokens, still.load(scratch.folder()).valid.tokens));
  std::set<std::pair<int64_t, int64_t>> seen;
  for (int64_t epoch = 0; epoch < 20; ++epoch) {
    const at::Tensor moved = corpus.draw(epoch).tokens;
    for (int64_t s = 0; s < 10; ++s) {
      int matches = 0;
      for (int64_t down = -1; down <= 1; ++down) {
        for (int64_t right = -1; right <= 1; ++right) {
          at::Tensor expected = at::zeros({3, 4}, at::kByte);
          for (int64_t r = 0; r < 3; ++r) {
            for (int64_t c = 0; c < 4; ++c) {
              const int64_t y = r + down, x = c + right;
              if (y >= 0 && y < 3 && x >= 0 && x < 4) expected[r][c] = images[s][y][x];
            }
          }
          if (!at::equal(expected, moved[s])) continue;
          ++matches;
          seen.insert({down, right});
        }
      }
      EXPECT_GE(matches, 1);
    }
  }
  EXPECT_EQ(seen.size(), 9u);
}

TEST_F(ImagesTest, AreWrittenAndRead) {
  for (const ImageOrder order :
       {ImageOrder::Grid, ImageOrder::Rows, ImageOrder::Pixels, ImageOrder::Permuted}) {
    const Images task{.order = order, .valid = 5};
    const Corpus corpus = task.load(scratch.folder());
    const at::Tensor image = corpus.test.tokens[2].to(at::kLong);
    for (const bool picture : {false, true}) {
      const std::string text =
          task.show({image, {}, corpus.vocabulary, corpus.answer_vocabulary(), picture});
      const auto read = task.read_text(text, "x", corpus.vocabulary);
      ASSERT_EQ(read.size(), 1u) << text;
      if (order == ImageOrder::Permuted) continue;  // of no square: rows are not known
      EXPECT_TRUE(at::equal(read[0].tokens, image)) << text;
    }
    at::Tensor answer = at::full(image.sizes(), 1, at::kLong);
    answer.flatten()[-1] = 2;
    EXPECT_EQ(task.show({image, answer, corpus.vocabulary, corpus.answer_vocabulary()}), "2");
  }
  const Images permuted{.order = ImageOrder::Permuted};
  const Vocabulary levels = Images{.valid = 5}.load(scratch.folder()).vocabulary;
  const auto square = permuted.read_text("1 2 3/4 5 6/7 8 9", "x", levels)[0].tokens;
  EXPECT_NE(square[0].item<int64_t>() * 10 + square[1].item<int64_t>(), 12);
  EXPECT_EQ(permuted.show({square, {}, levels, levels}), "1 2 3 / 4 5 6 / 7 8 9");
  EXPECT_SAYS(error_of([&] { permuted.read_text("1 256", "i.txt", levels); }),
              "i.txt, line 1: unknown symbol '256'");
}

TEST_F(ImagesTest, BadFilesAreOneLine) {
  const Images task{.valid = 5};
  EXPECT_SAYS(error_of([&] { task.load(""); }), "data is not set; expected a folder");
  EXPECT_SAYS(says({.valid = 20}), "20 training images, of which task-valid = 20 leave 0");
  EXPECT_SAYS(says({.valid = 5, .train = 16}), "leave 15; expected task-train = 16");
  EXPECT_SAYS(says({.valid = 5, .moved = 3}), "task-moved = 3: images are of 3 x 4 pixels");
  const fs::path images = scratch / "t10k-images-idx3-ubyte",
                 labels = scratch / "train-labels-idx1-ubyte";
  const std::string whole = testing::slurp(images), known = testing::slurp(labels);
  spill(images, whole.substr(0, whole.size() - 1));
  EXPECT_SAYS(says(task), "t10k-images-idx3-ubyte");
  EXPECT_SAYS(says(task), "71 bytes behind sizes [6, 3, 4]");
  spill(images, idx({6, 4, 3}, whole.substr(16)));
  EXPECT_SAYS(says(task), "test images of [4, 3]; expected [3, 4], as in training");
  spill(images, idx({0, 3, 4}, ""));
  EXPECT_SAYS(says(task), "holds [0, 3, 4], no pixel; expected an image at least");
  spill(images, whole + "x");
  EXPECT_SAYS(says(task), "73 bytes behind sizes [6, 3, 4]");
  spill(images, "x" + whole);
  EXPECT_SAYS(says(task), "89 bytes that are no IDX file");
  spill(images, idx({72}, whole.substr(16)));
  EXPECT_SAYS(says(task), "holds [72] of Byte; expected images, rows, columns of Byte");
  spill(images, whole);
  spill(labels, idx({19}, known.substr(8, 19)));
  EXPECT_SAYS(says(task), "holds [19] of Byte; expected 20 labels of Byte");
  std::string other = known.substr(8);
  other.back() = 7;  // of validation
  spill(labels, idx({20}, other));
  EXPECT_SAYS(says(task), "validation labels: 7, of image 5; expected 0 to 2, as in training");
  other.front() = char(200);
  spill(labels, idx({20}, other));
  EXPECT_SAYS(says(task),
              "201 classes, by the largest of the training labels; expected at most 128");
  fs::rename(labels, labels.string() + ".gz");
  EXPECT_SAYS(says(task), "no file");
  EXPECT_SAYS(says(task), "unpack the .gz beside it with gunzip");
}

TEST_F(ImagesTest, ARunsClassesAreKept) {
  const Images task{.valid = 5};
  const Corpus corpus = task.load(scratch.folder());
  const Corpus again = task.load(scratch.folder(), corpus.vocabulary, *corpus.answers);
  EXPECT_TRUE(at::equal(again.test.targets, corpus.test.targets));
  EXPECT_SAYS(error_of([&] {
                task.load(scratch.folder(), corpus.vocabulary, symbols({"0", "1"}));
              }),
              "training labels: 2, of image 3; expected 0 to 1");
  EXPECT_SAYS(error_of([&] {
                task.load(scratch.folder(), corpus.vocabulary, symbols({"1", "0"}));
              }),
              "the vocabularies given are of 256 and 2 symbols");
}

TEST(Mnist, IsReadWhole) {
  const char* data = std::getenv("DEQ_DATA_DIR");
  const fs::path packed = data ? fs::path(data) / "mnist" : fs::path();
  if (!data || !fs::exists(packed / "train-images-idx3-ubyte.gz"))
    GTEST_SKIP() << "DEQ_DATA_DIR has no mnist";
  const Scratch scratch;
  for (const char* name : {"train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                           "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"}) {
    const std::string command = fmt::format(
        "gzip -dc '{}' > '{}'", (packed / name).string() + ".gz", (scratch / name).string());
    ASSERT_EQ(std::system(command.c_str()), 0);
  }
  const Corpus corpus = Images().load(scratch.folder());
  EXPECT_EQ(corpus.train.tokens.sizes(), (at::IntArrayRef{55000, 28, 28}));
  EXPECT_EQ(corpus.valid.tokens.sizes(), (at::IntArrayRef{5000, 28, 28}));
  EXPECT_EQ(corpus.test.tokens.sizes(), (at::IntArrayRef{10000, 28, 28}));
  // As the set is described: 980 zeros and 1135 ones of the test, a mean of 0.1307 in training.
  const at::Tensor classes = corpus.test.targets.flatten(1).select(1, -1);
  EXPECT_EQ(classes.eq(0).sum().item<int64_t>(), 980);
  EXPECT_EQ(classes.eq(1).sum().item<int64_t>(), 1135);
  EXPECT_NEAR(corpus.train.tokens.to(at::kFloat).mean().item<double>() / 255, 0.1307, 3e-4);
}

}  // namespace
}  // namespace deq
