#include "deq/tasks/images.h"

#include <ATen/ATen.h>

#include <cmath>

#include "deq/base/printable.h"
#include "deq/data/idx.h"
#include "deq/data/random.h"

namespace deq {
namespace {

namespace fs = std::filesystem;

// Streams of random numbers.
constexpr int64_t kPermutation = 0, kMoves = 1;
constexpr int64_t kMostClasses = 128;  // a label is a byte, and targets are signed

/// Images (S, H, W) and labels (S), uint8.
struct Labelled {
  at::Tensor images, labels;
};

std::string shown(const fs::path& path) { return printable(path.string(), 400); }

Labelled read_labelled(const fs::path& folder, const char* set) {
  const fs::path images = folder / fmt::format("{}-images-idx3-ubyte", set),
                 labels = folder / fmt::format("{}-labels-idx1-ubyte", set);
  for (const fs::path& path : {images, labels}) {
    std::error_code ignored;
    const bool packed = fs::exists(path.string() + ".gz", ignored);
    DEQ_CHECK(fs::exists(path, ignored), "no file '{}'; expected it{}", shown(path),
              packed ? ": unpack the .gz beside it with gunzip" : "");
  }
  Labelled read{read_idx(images), read_idx(labels)};
  DEQ_CHECK(read.images.dim() == 3 && read.images.scalar_type() == at::kByte,
            "'{}' holds [{}] of {}; expected images, rows, columns of Byte", shown(images),
            fmt::join(read.images.sizes(), ", "), c10::toString(read.images.scalar_type()));
  DEQ_CHECK(read.images.numel() > 0, "'{}' holds [{}], no pixel; expected an image at least",
            shown(images), fmt::join(read.images.sizes(), ", "));
  DEQ_CHECK(read.labels.dim() == 1 && read.labels.scalar_type() == at::kByte &&
                read.labels.size(0) == read.images.size(0),
            "'{}' holds [{}] of {}; expected {} labels of Byte, as there are images", shown(labels),
            fmt::join(read.labels.sizes(), ", "), c10::toString(read.labels.scalar_type()),
            read.images.size(0));
  return read;
}

Labelled part(const Labelled& all, int64_t first, int64_t count) {
  return {all.images.narrow(0, first, count), all.labels.narrow(0, first, count)};
}

/// The order of the pixels of an image, (L).
at::Tensor pixel_order(const Images& task, int64_t pixels) {
  return at::tensor(permutation(pixels, random_stream({task.seed, kPermutation})), at::kLong);
}

/// (S, H, W) as the task lays images out.
at::Tensor laid_out(const Images& task, const at::Tensor& images) {
  if (task.order == ImageOrder::Grid || task.order == ImageOrder::Rows) return images;
  const at::Tensor pixels = images.flatten(1);
  if (task.order == ImageOrder::Pixels) return pixels;
  return pixels.index_select(1, pixel_order(task, pixels.size(1)));
}

Split as_split(const Images& task, const Labelled& set) {
  Split split{.tokens = laid_out(task, set.images).contiguous(), .answer = kEveryPosition};
  split.targets = at::full(split.tokens.sizes(), -1, at::kChar);
  split.targets.flatten(1).select(1, -1).copy_(set.labels);
  return split;
}

/// Each image moved by up to `most` pixels either way; what comes in is 0.
at::Tensor moved(const at::Tensor& images, int64_t most, std::mt19937_64& random) {
  const int64_t H = images.size(1), W = images.size(2);
  const at::Tensor padded = at::constant_pad_nd(images, {most, most, most, most});
  at::Tensor all = at::empty_like(images);
  for (int64_t s = 0; s < images.size(0); ++s) {
    const int64_t down = below(2 * most + 1, random), right = below(2 * most + 1, random);
    all[s].copy_(padded[s].narrow(0, down, H).narrow(1, right, W));
  }
  return all;
}

/// Numbers from 0 on.
Vocabulary numbers(int64_t count) {
  std::vector<std::string> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(std::to_string(i));
  return symbols(std::move(tokens));
}

void check_labels(const Labelled& set, int64_t classes, const char* name) {
  const int64_t most = set.labels.max().item<int64_t>(), at = set.labels.argmax().item<int64_t>();
  DEQ_CHECK(most < classes, "{} labels: {}, of image {}; expected 0 to {}, as in training", name,
            most, at + 1, classes - 1);
}

Corpus load_images(const Images& task, const fs::path& data, const Vocabulary* answers) {
  validate(task, "Images");
  DEQ_CHECK(!data.empty(), "data is not set; expected a folder with the files of task {}",
            Images::name);
  const Labelled all = read_labelled(data, "train"), test = read_labelled(data, "t10k");
  DEQ_CHECK(test.images.sizes().slice(1) == all.images.sizes().slice(1),
            "test images of [{}]; expected [{}], as in training",
            fmt::join(test.images.sizes().slice(1), ", "),
            fmt::join(all.images.sizes().slice(1), ", "));
  const int64_t left = all.images.size(0) - task.valid;
  DEQ_CHECK(left >= std::max<int64_t>(1, task.train),
            "{} training images, of which task-valid = {} leave {}; expected {} to train on",
            all.images.size(0), task.valid, std::max<int64_t>(left, 0),
            task.train > 0 ? fmt::format("task-train = {}", task.train) : "some");
  const Labelled train = part(all, 0, task.train > 0 ? task.train : left),
                 valid = part(all, left, task.valid);
  const int64_t side = std::min(all.images.size(1), all.images.size(2));
  DEQ_CHECK(answers || task.moved < side,
            "task-moved = {}: images are of {} x {} pixels; expected less than {}", task.moved,
            all.images.size(1), all.images.size(2), side);
  const int64_t classes =
      answers ? answers->size() : std::max<int64_t>(2, train.labels.max().item<int64_t>() + 1);
  DEQ_CHECK(classes <= kMostClasses,
            "'{}': {} classes, by the largest of the training labels; expected at most {}",
            shown(data), classes, kMostClasses);
  check_labels(train, classes, "training");
  check_labels(valid, classes, "validation");
  check_labels(test, classes, "test");
  Corpus corpus;
  corpus.vocabulary = numbers(Images::kLevels);
  corpus.answers = numbers(classes);
  corpus.valid = as_split(task, valid);
  corpus.test = as_split(task, test);
  if (task.moved == 0) {
    corpus.train = as_split(task, train);
    return corpus;
  }
  corpus.draw = [task, train](int64_t epoch) {
    std::mt19937_64 random = random_stream({task.seed, kMoves, epoch});
    return as_split(task, {moved(train.images, task.moved, random), train.labels});
  };
  corpus.train = corpus.draw(0);
  return corpus;
}

}  // namespace

Corpus Images::load(const fs::path& data) const { return load_images(*this, data, nullptr); }

Corpus Images::load(const fs::path& data, const Vocabulary& inputs,
                    const Vocabulary& answers) const {
  DEQ_CHECK(inputs.fingerprint() == numbers(kLevels).fingerprint() &&
                answers.fingerprint() == numbers(answers.size()).fingerprint(),
            "the vocabularies given are of {} and {} symbols; expected the {} grey levels of task "
            "{} and classes from 0",
            inputs.size(), answers.size(), kLevels, name);
  return load_images(*this, data, &answers);
}

std::vector<WrittenProblem> Images::read_text(const std::string& text, const std::string& source,
                                              const Vocabulary& inputs) const {
  std::vector<WrittenProblem> read = read_problems(text, source, inputs, 2);
  for (WrittenProblem& problem : read)
    problem.tokens = laid_out(*this, problem.tokens.unsqueeze(0)).squeeze(0);
  return read;
}

std::string Images::show(const Shown& shown) const {
  if (shown.answer.defined())
    return write_symbols(shown.answer.flatten().slice(0, -1), shown.answers);
  at::Tensor image = shown.problem;
  if (image.dim() == 1) {
    const int64_t pixels = image.numel();
    if (order == ImageOrder::Permuted)
      image = at::empty_like(image).index_copy(0, pixel_order(*this, pixels), image);
    const auto side = int64_t(std::lround(std::sqrt(double(pixels))));
    image = image.view({side * side == pixels ? side : 1, -1});
  }
  return write_symbols(image, shown.inputs, {.rows = shown.picture ? "\n" : " / "});
}

}  // namespace deq
