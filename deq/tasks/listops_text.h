// ListOps as the published files have it, and as a person writes it.
#pragma once

#include <filesystem>

#include "deq/data/corpus.h"
#include "deq/tasks/written.h"

namespace deq {

/// Expressions, padded to `places` with blanks, and their values: at the last symbol, or at every
/// closing bracket. Extents are the expressions' own.
Split listops_split(const std::vector<std::vector<int64_t>>& expressions, int64_t places,
                    bool every);

/// A file of lines of a value, a tab and an expression, without vocabularies (ListOps::load).
Corpus load_listops(const std::filesystem::path& path, bool every);

/// ListOps::read_text
std::vector<WrittenProblem> read_listops(const std::string& text, const std::string& source,
                                         const Vocabulary& inputs);

}  // namespace deq
