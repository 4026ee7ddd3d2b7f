// A recurrent network with soft stacks (Joulin and Mikolov 2015; of vectors as in Deletang et al.
// 2023). At each position, with reads r the topmost entries of all stacks s,
//     h = tanh(W x + R h' + P r' + b)
//     a = softmax(A h) over push, pop, keep, for each stack;  v = tanh(V h) what is pushed
//     s_i = a_push s'_{i-1} + a_pop s'_{i+1} + a_keep s'_i,   s'_{-1} = v, below the last nothing
// and it puts out h.
#pragma once

#include "deq/base/fields.h"
#include "deq/cells/linear.h"
#include "deq/cells/memory_cell.h"

namespace deq {

/// A layer of it.
struct StackRnn {
  static constexpr const char* name = "stack-rnn";
  int64_t width = 64;
  int64_t stacks = 1;
  int64_t stack_depth = 128;
  int64_t stack_width = 16;
  int64_t reads = 1;
  double dropout = 0.0;

  static void fields(auto& self, auto&& field) {
    field("width", self.width, "units", between(1, 1 << 20));
    field("stacks", self.stacks, "stacks", between(1, 64));
    field("stack_depth", self.stack_depth, "entries of a stack; what lies deeper is lost",
          between(1, 1 << 16));
    field("stack_width", self.stack_width, "numbers of an entry", between(1, 1 << 16));
    field("reads", self.reads, "entries at a stack's top that the units see", between(1, 1 << 16));
    field("dropout", self.dropout, "share of the output's features dropped, for all positions",
          half_open(0, 1));
  }
  bool is_causal() const { return true; }
  std::shared_ptr<Cell> make(const CellPlace& place) const;
};

/// Its state is its units and all entries of its stacks.
class StackRnnCell final : public MemoryCell {
 public:
  /// Throws deq::Error for options out of range, and for more reads than a stack is deep.
  explicit StackRnnCell(const StackRnn& options);

  void initialise(double std) override;

 protected:
  std::unique_ptr<Steps> begin(std::vector<at::Tensor> state) const override;
  std::vector<at::Tensor> first_state() const override;
  std::vector<std::string> track_names() const override;

 private:
  struct Run;

  StackRnn options_;
  std::shared_ptr<Linear> input_, hidden_, read_, action_, push_;
};

}  // namespace deq
