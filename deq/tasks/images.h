#pragma once

#include "deq/tasks/problems.h"
#include "deq/tasks/written.h"

namespace deq {

/// How an image is laid out for a model.
enum class ImageOrder {
  Rows,      ///< a sequence of rows (a model that reads rows)
  Pixels,    ///< a sequence of pixels, row by row
  Permuted,  ///< the same pixels in one random order (Le, Jaitly, Hinton 2015)
  Grid       ///< a grid of pixels
};
template <>
struct Names<ImageOrder> {
  static constexpr const char* values[] = {"rows", "pixels", "permuted", "grid"};
};

/// An image, of grey levels 0 to 255, and its class, which is scored at the last place. `data` is a
/// folder with four files in the IDX format, as MNIST and what followed it come: train-images-idx3-
/// ubyte, train-labels-idx1-ubyte, and t10k- for the test. The last `valid` training images are for
/// validation.
struct Images {
  static constexpr const char* name = "images";
  static constexpr Unit unit = Unit::Symbol;
  static constexpr int64_t kLevels = 256;
  ImageOrder order = ImageOrder::Grid;
  int64_t valid = 5000;
  int64_t train = 0;
  int64_t moved = 0;
  int64_t seed = 1;

  static void fields(auto& self, auto&& field) {
    field("order", self.order, "how an image is laid out");
    field("valid", self.valid, "images for validation: the last of those for training",
          between(1, 1 << 24));
    field("train", self.train, "images to train on, the first; 0: all that are left",
          between(0, 1 << 24));
    field("moved", self.moved,
          "pixels that a training image is moved at most, up or down and left or right, anew in "
          "each epoch",
          between(0, 1 << 10));
    field("seed", self.seed, "of the permutation, and of what is moved", at_least(0));
  }

  int64_t dimensions() const { return order == ImageOrder::Grid ? 2 : 1; }
  std::string reading() const { return order == ImageOrder::Rows ? "rows" : "values"; }
  int64_t known_vocabulary() const { return kLevels; }
  /// Throws deq::Error for a folder without the four files, for one that is cut short or is no IDX
  /// file, and for images and labels that do not go together. Classes are those of the training
  /// labels.
  Corpus load(const std::filesystem::path& data) const;
  /// In a run's vocabularies, for evaluating; a label that is no class of them is an error.
  Corpus load(const std::filesystem::path& data, const Vocabulary& inputs,
              const Vocabulary& answers) const;

  /// Images as rows of grey levels, in lines, or joined by '/'; permuted where the task is.
  std::vector<WrittenProblem> read_text(const std::string& text, const std::string& source,
                                        const Vocabulary& inputs) const;
  /// An image as its rows of grey levels; of an answer the class.
  std::string show(const Shown& shown) const;
};

}  // namespace deq
