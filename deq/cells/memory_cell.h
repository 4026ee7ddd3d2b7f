// Recurrent cells with a memory beside their units. A level of an explicit network, as LSTM and GRU
// are: its state is its input, and f(z) what its steps put out.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "deq/cells/cell.h"

namespace deq {

/// Where one head stood, or what one stack did, at each position of a problem.
struct MemoryTrack {
  std::string name;             ///< "write", "read 2", "stack 1"
  std::vector<std::string> at;  ///< (T) a slot, or an action
};

/// Steps through the positions, from a state of all that it remembers to the next. Its history is
/// that state: z (B, 1, S).
class MemoryCell : public Cell {
 public:
  std::vector<Bound> bind_levels(const at::Tensor& x, const std::vector<History>& levels) override;
  void forget(History& history, const std::vector<int64_t>& rows, int64_t kept) const override;
  bool causal() const override { return true; }
  bool injects() const override { return false; }
  int64_t input_width() const override { return width_; }
  int64_t state_width() const override { return width_; }

  /// What its memory did with an input z (1, T, D) of one problem from its beginning.
  std::vector<MemoryTrack> look_at(const at::Tensor& z) const;

 protected:
  MemoryCell(std::string name, int64_t width, double dropout)
      : name_(std::move(name)), width_(width), dropout_(dropout) {}

  /// Steps of one segment, with what does not change between them computed once.
  class Steps {
   public:
    virtual ~Steps() = default;
    /// What the parts of the state hold now, (B, .) each, and their widths' order.
    std::vector<at::Tensor> state;
    /// From an input (B, D) to an output (B, D); changes `state`.
    virtual at::Tensor step(const at::Tensor& input) = 0;
    /// Of row 0, as of the last step, for each head or stack.
    virtual std::vector<std::string> where() const = 0;
  };
  /// For inputs z (B, T, D), which come one by one: steps that begin in `state`.
  virtual std::unique_ptr<Steps> begin(std::vector<at::Tensor> state) const = 0;
  /// Of one row, (1, .) each, at its beginning.
  virtual std::vector<at::Tensor> first_state() const = 0;
  virtual std::vector<std::string> track_names() const = 0;

 private:
  struct Level;

  std::string name_;
  int64_t width_;
  double dropout_;
};

}  // namespace deq
