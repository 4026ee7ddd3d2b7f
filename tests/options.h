// Options of an alternative, by the name of their key: what the suites over lists set.
#pragma once

#include <string>
#include <variant>

#include "deq/base/fields.h"

namespace deq::testing {

/// Sets a numeric option of the alternative that `choice` holds, where that has it, whatever its
/// range: as code can.
template <class Choice>
void set_where_known(Choice& choice, const std::string& wanted, double number) {
  struct Set : detail::Leaf {
    std::string wanted;
    double number = 0;

    void scalar(const std::string& key, detail::Scalar value, const char*, const Range&) override {
      if (key != wanted) return;
      if (auto** place = std::get_if<int64_t*>(&value)) **place = int64_t(number);
      if (auto** place = std::get_if<double*>(&value)) **place = number;
    }
    void enumeration(const std::string&, size_t&, const std::vector<std::string>&,
                     const char*) override {}
    void choice(const std::string&, detail::Alternatives&, const char*) override {}
  } set;
  set.wanted = wanted;
  set.number = number;
  detail::Walk walk(set, "");
  choice->walk(walk);
}

}  // namespace deq::testing
