// Tokens <-> ids: what a model's output means, kept beside its weights.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "deq/base/fields.h"

namespace deq {

/// What one token is. Of values (base/levels.h) the list has the marks and the columns.
enum class Unit { Word, Byte, Character, Symbol, Value };
template <>
struct Names<Unit> {
  static constexpr const char* values[] = {"word", "byte", "character", "symbol", "value"};
};

const char* unit_name(Unit unit);  ///< as in Names
/// "perplexity", "bits per byte", "bits per character", "cross-entropy", "scaled error"
const char* metric_name(Unit unit);
/// The metric of a mean negative log-likelihood in nats: exp for words, itself for symbols and
/// values (whose loss is no likelihood), / ln 2 for the others.
double metric_value(Unit unit, double mean_nats);

/// Whether tokens stand between white space: words and symbols.
inline bool is_spaced(Unit unit) { return unit == Unit::Word || unit == Unit::Symbol; }
/// Whether tokens make a text, in which a target is the token one position later.
inline bool makes_text(Unit unit) { return unit != Unit::Symbol && unit != Unit::Value; }

inline constexpr const char* kEndOfLine = "<eos>";  ///< ends every line, for words
inline constexpr const char* kUnknown = "<unk>";    ///< stands for what the list lacks

/// Calls `use(token, offset)` for each token of `text`, which must not cut a word or a character.
/// Words and symbols are separated by ASCII white space; a newline is the word `<eos>`, but no
/// symbol. Text that is not UTF-8 (characters) is an error that names `source` and the byte,
/// counted from `offset`.
void for_each_token(Unit unit, std::string_view text,
                    const std::function<void(std::string_view token, int64_t offset)>& use,
                    const std::string& source = "text", int64_t offset = 0);

/// An immutable list of distinct tokens; the id of a token is its place. Copies share the list.
class Vocabulary {
 public:
  Vocabulary() : Vocabulary(Unit::Word, {}) {}
  Vocabulary(Unit unit, std::vector<std::string> tokens);
  static Vocabulary bytes();  ///< all 256; the id of a byte is its value

  Unit unit() const { return unit_; }
  int64_t size() const;
  const std::string& token(int64_t id) const;
  std::optional<int64_t> find(std::string_view token) const;

  /// Calls `emit(id)` for each token of `text`, as `for_each_token` finds them. Unknown words and
  /// characters become `<unk>` if it is in the list; what cannot be encoded is an error that names
  /// it with `source` (a file, "the prompt") and `offset` plus its place in `text`.
  void encode(std::string_view text, const std::function<void(int64_t)>& emit,
              const std::string& source = "text", int64_t offset = 0) const;
  std::vector<int64_t> encode(std::string_view text, const std::string& source = "text") const;

  /// Words and symbols are joined by spaces, and the word `<eos>` ends a line; bytes and characters
  /// as they were.
  std::string decode(const std::vector<int64_t>& ids) const;
  /// What `id` adds to a text that ends with token `before` (-1: starts it), for streaming.
  std::string decode_next(int64_t id, int64_t before) const;

  /// One token per line in UTF-8 below a first line that names the unit. Control characters,
  /// spaces, backslashes and bytes that are not UTF-8 are escaped (`\n`, `\\`, `\xNN`), so that any
  /// token survives editors and line endings: a file whose first line ends with CRLF is read as one
  /// whose lines all do.
  std::string serialize() const;
  static Vocabulary parse(std::string_view text, const std::string& source);
  void save(const std::filesystem::path& path) const;
  static Vocabulary load(const std::filesystem::path& path);

  /// SHA-256 of `serialize()`, as 64 hexadecimal digits: equal if and only if unit and list are.
  std::string fingerprint() const;

 private:
  struct Table;
  int64_t require(std::string_view token, const std::string& source, int64_t offset) const;

  Unit unit_;
  std::shared_ptr<const Table> table_;
};

}  // namespace deq
