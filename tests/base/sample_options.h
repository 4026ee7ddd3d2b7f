// Options with every kind of field, for the tests of what is derived from a list of fields.
#pragma once

#include "deq/base/fields.h"

namespace deq::testing {

enum class Shape { kFlat, kRound };

}  // namespace deq::testing

template <>
struct deq::Names<deq::testing::Shape> {
  static constexpr const char* values[] = {"flat", "round"};
};

namespace deq::testing {

struct Picard {
  static constexpr const char* name = "picard";
  double damping = 1.0;
  static void fields(auto& self, auto&& field) {
    field("damping", self.damping, "share of the new state", left_open(0, 1));
  }
};

struct Ridge {
  static constexpr const char* name = "ridge";
  double weight = 1e-3;
  static void fields(auto& self, auto&& field) { field("weight", self.weight, "", above(0)); }
};
struct Cutoff {
  static constexpr const char* name = "cutoff";
  static void fields(auto&, auto&&) {}
};

struct Anderson {
  static constexpr const char* name = "anderson";
  int64_t memory = 5;
  std::variant<Ridge, Cutoff> guard{};
  static void fields(auto& self, auto&& field) {
    field("memory", self.memory, "past iterates", between(1, 1 << 20));
    field("guard", self.guard, "against a singular system");
  }
};

struct Stop {
  int64_t max_steps = 40;
  double rel_tol = 1e-3;
  static void fields(auto& self, auto&& field) {
    field("max_steps", self.max_steps, "steps", at_least(1));
    field("rel_tol", self.rel_tol, "tolerance", half_open(0, 1));
  }
};

struct Options {
  bool verbose = false;
  int64_t seed = 1;
  double rate = 0.5;
  std::string title = "plain";
  std::vector<int64_t> sizes = {1, 2};
  Shape shape = Shape::kFlat;
  Stop stop;      // keys without a prefix
  Stop backward;  // keys with one
  std::variant<Picard, Anderson> solver;
  static void fields(auto& self, auto&& field) {
    field("verbose", self.verbose, "say more");
    field("seed", self.seed);
    field("rate", self.rate);
    field("title", self.title);
    field("sizes", self.sizes);
    field("shape", self.shape);
    field("", self.stop);
    field("backward", self.backward);
    field("solver", self.solver, "method");
  }
};

inline Options assigned(const Assignments& values) {
  Options options;
  assign_options(options, values);
  return options;
}
}  // namespace deq::testing
