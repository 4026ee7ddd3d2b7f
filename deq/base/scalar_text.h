// The values of options as text, and back.
#pragma once

#include <string>

#include "deq/base/fields.h"

namespace deq::detail {

/// bool, int, float, text or list.
const char* type_name(const Scalar& scalar);

/// What reads back to the same value.
std::string text_of(const Scalar& scalar);

/// Reads `text` into `scalar`. Throws deq::Error and changes nothing where `text` has another type
/// or is outside `range`; it is about the option `key`.
void read_text(const std::string& key, const std::string& text, const Range& range, Scalar scalar);

/// Throws deq::Error, which names `key`, for a number outside `range`.
void check_range(const std::string& key, Scalar scalar, const Range& range);

}  // namespace deq::detail
