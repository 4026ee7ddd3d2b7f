// Every registered cell, with its options in several ways, ready to be bound.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "deq/cells/cells.h"
#include "deq/cells/convolution.h"
#include "deq/cells/energy.h"
#include "deq/cells/energy_attention.h"
#include "deq/cells/energy_convolution.h"
#include "deq/cells/energy_groups.h"
#include "deq/cells/energy_patterns.h"
#include "deq/cells/groups.h"
#include "deq/cells/implicit.h"
#include "deq/cells/monotone.h"
#include "deq/cells/monotone_convolution.h"
#include "deq/cells/ntm.h"
#include "deq/cells/recurrent.h"
#include "deq/cells/shift.h"
#include "deq/cells/stack_rnn.h"
#include "deq/cells/tcn.h"
#include "deq/cells/transformer.h"
#include "deq/cells/trellisnet.h"

namespace deq::testing {

struct CellCase {
  const char* name;
  CellOptions options;
  CellPlace place = {};

  /// Whether its f is of kernels, which take their memory from a pool and can read rounded weights.
  bool of_kernels() const { return options.is<Transformer>() || options.is<TrellisNet>(); }
};

inline std::vector<CellCase> cell_cases() {
  const Transformer transformer{.width = 8, .heads = 2, .inner = 12};
  Transformer pre = transformer, bidirectional = transformer, windowed = transformer;
  Transformer published = transformer;
  published.norm = NormPlace::PrePublished;
  pre.norm = NormPlace::Pre;
  pre.weight_norm = false;
  bidirectional.causal = false;
  windowed.window = 3;
  const TrellisNet trellis{.hidden = 5, .output = 3, .input = 4};
  TrellisNet wide = trellis;
  wide.kernel = 3;
  wide.dilation = 2;
  wide.weight_norm = false;
  TrellisNet narrow = trellis;
  narrow.kernel = 1;
  TrellisNet both = trellis, both_wide = wide;
  both.causal = both_wide.causal = false;
  return {
      {"transformer", transformer},
      {"transformer_pre", pre},
      {"transformer_pre_published", published},
      {"transformer_window", windowed},
      {"transformer_bidirectional", bidirectional},
      {"transformer_without_injection", transformer, {.injection = false}},
      {"trellisnet", trellis},
      {"trellisnet_wide", wide},
      {"trellisnet_kernel_1", narrow},
      {"trellisnet_bidirectional", both},
      {"trellisnet_bidirectional_wide", both_wide},
      {"lstm", Lstm{{.width = 6}}},
      {"gru", Gru{{.width = 6}}},
      {"stack_rnn", StackRnn{.width = 6, .stack_depth = 4, .stack_width = 3}},
      {"stack_rnn_of_two",
       StackRnn{.width = 5, .stacks = 2, .stack_depth = 12, .stack_width = 2, .reads = 3}},
      {"ntm", Ntm{.width = 6, .slots = 7, .slot_width = 4}},
      {"ntm_of_two", Ntm{.width = 5,
                         .controller = Controller::Feedforward,
                         .slots = 6,
                         .slot_width = 3,
                         .read_heads = 2,
                         .write_heads = 2,
                         .shift = 2}},
      {"tcn", Tcn{.width = 6, .kernel = 3}, {.level = 1}},
      {"shift", Shift{.width = 6, .inner = 9}},
      {"shift_additive", Shift{.width = 6, .inner = 9, .meeting = Meeting::Additive}},
      {"conv", Convolution{.width = 6}},
      {"conv_published", Convolution{.width = 6, .convolutions = 5, .norm = ConvolutionNorm::None}},
      {"monotone", Monotone{.width = 6, .input = 4, .margin = 0.5}},
      {"monotone_tanh", Monotone{.width = 6, .activation = Activation::Tanh}},
      {"monotone_conv", MonotoneConvolution{.width = 6, .input = 5}},
      {"monotone_conv_sigmoid",
       MonotoneConvolution{.width = 4, .kernel = 5, .activation = Activation::Sigmoid}},
      {"well_posed", WellPosed{.width = 6, .input = 4}},
      {"well_posed_softplus", WellPosed{.width = 6, .activation = Activation::Softplus}},
      {"energy_conv", Energy{.of = EnergyConvolution{.width = 4, .inner = 6}}},
      {"energy_groups",
       Energy{.of = EnergyGroups{.width = 4, .inner = 6, .groups = "all"}},
       {.symbols = 3}},
      {"energy_attention", Energy{.of = EnergyAttention{.width = 8, .heads = 2, .inner = 6}}},
      // Not Hopfield's: its places know nothing of each other, which a causal cell may say.
      {"groups", Groups{.width = 12, .inner = 6, .groups = "all"}, {.symbols = 3}}};
}

class CellTest : public ::testing::TestWithParam<CellCase> {
 protected:
  static constexpr int64_t B = 2, T = 9;

  void SetUp() override {
    at::manual_seed(11);
    cell = make_cell(GetParam().options, GetParam().place);
    cell->initialise(0.4);
    cell->to(at::kDouble);
    cell->eval();
    x = at::randn({B, T, cell->input_width()}, at::kDouble);
    z = at::randn({B, T, cell->state_width()}, at::kDouble);
  }
  /// The history after `count` positions of x and z.
  History after(int64_t count, int64_t length) {
    const Bound f = cell->bind(x.narrow(1, 0, count), {});
    const at::Tensor seen = z.narrow(1, 0, count);
    f(seen);
    return f.extend(seen, length);
  }

  /// Whether a segment sees what stood before it.
  bool keeps_past() { return after(4, 100).length() > 0; }

  std::shared_ptr<Cell> cell;
  at::Tensor x, z;
};

}  // namespace deq::testing
