#include <deq/base/toml.h>

#include <cstdio>

struct Options {
  double rel_tol = 1e-3;
  static void fields(auto& self, auto&& field) {
    field("rel_tol", self.rel_tol, "when to stop", deq::above(0));
  }
};

int main() {
  Options options;
  deq::assign_options(options, {{"rel_tol", "0.5"}});
  std::puts(deq::to_toml(deq::list_options(options)).c_str());
  return options.rel_tol == 0.5 ? 0 : 1;
}
