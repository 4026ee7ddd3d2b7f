// The neural Turing machine (Graves, Wayne, Danihelka 2014): a controller with heads over a memory
// M of N slots, whose places it finds by content and by steps from where they were. At each
// position, with what was read before, r':
//     h = LSTM([x, r'], h'), or tanh(W [x, r'] + b)
//     of each head, from h: key k, strength b, gate g, shifts s, sharpness c >= 1
//     w_c = softmax(b cos(k, M_i));  w_g = g w_c + (1 - g) w';  w = sharpened(w_g * s)
//     write: M_i <- M_i (1 - w_i e) + w_i a;  then read: r = sum_i w_i M_i
// and it puts out O [h, r]. Heads begin at slot 0, of a memory that holds 1e-6 (Collier and Beel
// 2018).
#pragma once

#include "deq/base/fields.h"
#include "deq/cells/linear.h"
#include "deq/cells/memory_cell.h"

namespace deq {

/// What works the heads.
enum class Controller { Lstm, Feedforward };
template <>
struct Names<Controller> {
  static constexpr const char* values[] = {"lstm", "feedforward"};
};

/// A layer of it.
struct Ntm {
  static constexpr const char* name = "ntm";
  int64_t width = 100;
  Controller controller = Controller::Lstm;
  int64_t slots = 128;
  int64_t slot_width = 20;
  int64_t read_heads = 1;
  int64_t write_heads = 1;
  int64_t shift = 1;
  double dropout = 0.0;

  static void fields(auto& self, auto&& field) {
    field("width", self.width, "units of the controller", between(1, 1 << 20));
    field("controller", self.controller, "what works the heads");
    field("slots", self.slots, "of the memory", between(1, 1 << 16));
    field("slot_width", self.slot_width, "numbers of a slot", between(1, 1 << 16));
    field("read_heads", self.read_heads, "heads that read", between(1, 64));
    field("write_heads", self.write_heads, "heads that write", between(1, 64));
    field("shift", self.shift, "slots that a head moves in a step at most, either way",
          between(0, 1 << 15));
    field("dropout", self.dropout, "share of the output's features dropped, for all positions",
          half_open(0, 1));
  }
  bool is_causal() const { return true; }
  std::shared_ptr<Cell> make(const CellPlace& place) const;
};

/// Its state is its controller's, what was read, where heads stand, and the memory.
class NtmCell final : public MemoryCell {
 public:
  /// Throws deq::Error for options out of range, and for shifts further than the memory goes.
  explicit NtmCell(const Ntm& options);

  void initialise(double std) override;

 protected:
  std::unique_ptr<Steps> begin(std::vector<at::Tensor> state) const override;
  std::vector<at::Tensor> first_state() const override;
  std::vector<std::string> track_names() const override;

 private:
  struct Run;
  int64_t heads() const { return options_.write_heads + options_.read_heads; }
  bool recurrent() const { return options_.controller == Controller::Lstm; }

  Ntm options_;
  std::shared_ptr<Linear> input_, hidden_, heads_, write_, output_;  // hidden_: of an LSTM
};

}  // namespace deq
