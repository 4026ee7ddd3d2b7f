// Texts that go on each as soon as it can.
#pragma once

#include "deq/cells/decoder.h"
#include "deq/decode/generator.h"
#include "deq/solvers/rolling.h"

namespace deq {

/// The texts of one call of TextGenerator::generate(), an equilibrium model's on the CPU.
class TextGenerator::Batch {
 public:
  Batch(TextGenerator& texts, std::vector<int64_t> counts, const SamplingOptions& options,
        std::vector<at::Generator>& generators, const OnToken& on_token);

  /// Until every text has its tokens; leaves the generator's cache and report as they are then.
  void run();

 private:
  void draw(const std::vector<int64_t>& texts);
  void take(const RollingSolve::Round& round);

  TextGenerator& of_;
  std::vector<int64_t> left_;
  const SamplingOptions& options_;
  std::vector<at::Generator>& generators_;
  const OnToken& on_token_;
  bool going_on_ = true;
  at::Tensor log_probabilities_;  // (B, V), its own memory
  at::Tensor zero_;               // (1, D)
  std::unique_ptr<Decoder> decoder_;
  RollingSolve solve_;
};

}  // namespace deq
