#pragma once

#include <functional>

#include "deq/data/readers.h"
#include "deq/layers/start.h"
#include "deq/train/options.h"

namespace deq {

/// Problems that are trained on for several steps, each with its state: a batch whose rows change
/// one by one. A row takes the stream's next problem once it is as old as was drawn for it, 2 to
/// `most` steps; so states of every age stand side by side, and equilibria are reached from states
/// that a model has left behind itself. With `right` > 0 a problem whose answer is right goes with
/// probability 1 / right at each step besides: what is left longest is what is hard. A share `over`
/// of problems starts from the state of the one before it in its row: from another's answer. The
/// first `grace` steps of a problem have no loss, so that nothing is gained by a guess.
class Carried {
 public:
  /// `carry` and what begins with it, of these.
  explicit Carried(const PathOptions& path)
      : most_(path.carry),
        right_(path.carry_right),
        over_(path.carry_over),
        grace_(path.carry_grace) {}

  struct Step {
    Batch batch;
    at::Tensor z0;  ///< (B, T, D)
  };
  /// Draws from LibTorch's generator. Throws deq::Error for problems of several extents.
  /// `state_shape` tells that of a batch's tokens.
  Step next(TrainingReader& reader, const StartOptions& start,
            const std::function<std::vector<int64_t>(const at::Tensor&)>& state_shape,
            c10::Device device);
  /// The states z (B, T, D) that this step left, and which answers are right, (B) bool; undefined
  /// where nobody asked.
  void keep(const at::Tensor& z, const at::Tensor& right);
  /// Begins with new problems.
  void clear();

  /// By name, for a checkpoint; nothing before the first step.
  NamedTensors state() const;
  void restore(const NamedTensors& state, c10::Device device);

 private:
  void take(int64_t row, TrainingReader& reader);

  int64_t most_, right_;
  double over_;
  int64_t grace_;
  Batch batch_;
  at::Tensor z_;
  std::vector<int64_t> age_, limit_;  // of each row, in steps
  Batch pending_;                     // problems read and not yet taken
  int64_t taken_ = 0;
};

}  // namespace deq
