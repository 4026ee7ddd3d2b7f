#include "deq/data/vocabulary.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>

#include "deq/base/utf8.h"
#include "tests/base/scratch.h"

namespace deq {
namespace {

using testing::error_of;
using testing::Scratch;
using testing::slurp;
using testing::spill;

/// A token of bytes that are hard on a file of lines: controls, escapes, spaces, broken UTF-8.
std::string awkward_token(std::mt19937& random) {
  const std::string pieces[] = {"\n",   "\r",   "\\",   " ",           "\t", std::string(1, '\0'),
                                "\x7f", "\xff", "\xc3", "ä",           "戦", "😀",
                                "n",    "x41",  "#",    "\xed\xa0\x80"};
  std::string token;
  for (size_t i = 1 + random() % 4; i > 0; --i) token += pieces[random() % std::size(pieces)];
  return token;
}

std::vector<std::string> awkward_tokens(std::mt19937& random) {
  std::set<std::string> seen;
  std::vector<std::string> tokens;
  for (size_t i = random() % 60; i > 0; --i) {
    const std::string token = awkward_token(random);
    if (seen.insert(token).second) tokens.push_back(token);
  }
  return tokens;
}

TEST(Vocabulary, SavedAndLoadedIsTheSame) {
  Scratch scratch;
  std::mt19937 random(1);
  for (int trial = 0; trial < 200; ++trial) {
    const Unit unit = trial % 2 ? Unit::Word : Unit::Character;
    const auto tokens = awkward_tokens(random);
    const Vocabulary vocabulary(unit, tokens);
    const Vocabulary again = Vocabulary::parse(vocabulary.serialize(), "memory");
    EXPECT_EQ(find_invalid_utf8(vocabulary.serialize()), std::string::npos);
    ASSERT_EQ(again.size(), int64_t(tokens.size()));
    EXPECT_EQ(again.unit(), unit);
    EXPECT_EQ(again.fingerprint(), vocabulary.fingerprint());
    for (size_t id = 0; id < tokens.size(); ++id) {
      ASSERT_EQ(again.token(int64_t(id)), tokens[id]);
      ASSERT_EQ(again.find(tokens[id]), int64_t(id));
    }
    const std::string text = vocabulary.serialize();
    EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), int64_t(tokens.size()) + 1);
  }
  const Vocabulary lines(Unit::Word, {"a", "\r", "b\n"});
  std::string crlf;  // as an editor or a checkout on Windows leaves it
  for (const char c : lines.serialize())
    crlf += c == '\n' ? std::string("\r\n") : std::string(1, c);
  EXPECT_EQ(Vocabulary::parse(crlf, "memory").fingerprint(), lines.fingerprint());
  Vocabulary::bytes().save(scratch / "bytes.txt");
  EXPECT_EQ(Vocabulary::load(scratch / "bytes.txt").fingerprint(),
            Vocabulary::bytes().fingerprint());
  EXPECT_EQ(scratch.names(), std::vector<std::string>{"bytes.txt"});
}

TEST(Vocabulary, FileIsReadable) {
  const Vocabulary vocabulary(Unit::Character, {"a", "\n", " ", "\\", "戦", "\xff"});
  EXPECT_EQ(vocabulary.serialize(),
            "# deq vocabulary: character\na\n\\n\n\\x20\n\\\\\n戦\n\\xff\n");
}

TEST(Vocabulary, FingerprintTellsListsApart) {
  const std::vector<std::string> tokens = {"a", "b", "c"};
  std::set<std::string> seen;
  for (const auto& other : std::vector<std::vector<std::string>>{tokens,
                                                                 {"a", "c", "b"},
                                                                 {"a", "b"},
                                                                 {"a", "b", "c", "d"},
                                                                 {"a", "b", "C"},
                                                                 {"ab", "c"}}) {
    seen.insert(Vocabulary(Unit::Word, other).fingerprint());
    seen.insert(Vocabulary(Unit::Character, other).fingerprint());
  }
  EXPECT_EQ(seen.size(), 12u);
  EXPECT_EQ(Vocabulary(Unit::Word, tokens).fingerprint(),
            Vocabulary(Unit::Word, tokens).fingerprint());
}

TEST(Vocabulary, CopiesOutliveTheOriginal) {
  Vocabulary copy;
  {
    const Vocabulary original(Unit::Word, {"one", "two"});
    copy = original;
  }
  EXPECT_EQ(copy.find("two"), 1);
  EXPECT_EQ(copy.token(0), "one");
}

TEST(Vocabulary, WordsEndLinesAndFallBackToUnknown) {
  const Vocabulary vocabulary(Unit::Word, {"<unk>", "<eos>", "the", "cat"});
  EXPECT_EQ(vocabulary.encode("the  cat\n\n\tdog\r\nthe"),
            (std::vector<int64_t>{2, 3, 1, 1, 0, 1, 2}));
  EXPECT_EQ(vocabulary.decode({2, 3, 1, 1, 0, 1, 2}), "the cat\n\n<unk>\nthe");
  EXPECT_EQ(vocabulary.encode(""), std::vector<int64_t>{});
  const Vocabulary closed(Unit::Word, {"the", "cat"});
  EXPECT_SAYS(error_of([&] { closed.encode("the dog", "the prompt"); }),
              "the prompt: word 'dog' at byte 4 is not in the vocabulary of 2 words, which has no "
              "<unk>");
  EXPECT_SAYS(error_of([&] { closed.encode("the\n"); }), "word '<eos>' at byte 3");
}

TEST(Vocabulary, BytesRoundTripAnything) {
  const Vocabulary vocabulary = Vocabulary::bytes();
  std::mt19937 random(2);
  for (int trial = 0; trial < 100; ++trial) {
    std::string text(random() % 50, ' ');
    for (char& byte : text) byte = static_cast<char>(random());
    const auto ids = vocabulary.encode(text);
    ASSERT_EQ(ids.size(), text.size());
    for (size_t i = 0; i < ids.size(); ++i) ASSERT_EQ(ids[i], (unsigned char)(text[i]));
    ASSERT_EQ(vocabulary.decode(ids), text);
  }
}

TEST(Vocabulary, CharactersRoundTripAndNameTheUnknown) {
  const Vocabulary vocabulary(Unit::Character, {"a", "ä", "戦", "😀", "\n", " "});
  const std::string text = "a 戦ä\n😀a";
  EXPECT_EQ(vocabulary.encode(text), (std::vector<int64_t>{0, 5, 2, 1, 4, 3, 0}));
  EXPECT_EQ(vocabulary.decode(vocabulary.encode(text)), text);
  EXPECT_SAYS(error_of([&] { vocabulary.encode("aäß", "notes.txt"); }),
              "notes.txt: character 'ß' at byte 3 is not in the vocabulary of 6 characters");
  EXPECT_SAYS(error_of([&] { vocabulary.encode("ä\xff"); }), "byte 2 (0xff) is not UTF-8");
}

TEST(Vocabulary, RefusesBadLists) {
  EXPECT_SAYS(error_of([] {
                Vocabulary(Unit::Word, {"a", "b", "a"});
              }),
              "'a' is token 0 and 2; expected distinct tokens");
  EXPECT_SAYS(error_of([] { Vocabulary(Unit::Word, {"a", ""}); }), "token 1 is empty");
  EXPECT_SAYS(error_of([] { Vocabulary(Unit::Byte, {"a"}); }), "expected all 256 in order");
  const Vocabulary vocabulary(Unit::Word, {"a", "b"});
  EXPECT_SAYS(error_of([&] { vocabulary.token(2); }), "token id = 2; expected in [0, 2)");
  EXPECT_SAYS(error_of([&] { vocabulary.decode({-1}); }), "token id = -1");
}

TEST(Vocabulary, RefusesBadFiles) {
  const std::string header = "# deq vocabulary: word\n";
  const auto says = [](const std::string& text) {
    return error_of([&] { Vocabulary::parse(text, "v.txt"); });
  };
  EXPECT_SAYS(says(""), "v.txt is no vocabulary");
  EXPECT_SAYS(says("the\ncat\n"), "its first line is 'the'");
  EXPECT_SAYS(says("# deq vocabulary: syllable\na\n"),
              "v.txt:1: unknown unit 'syllable'; known: word, byte, character, symbol");
  EXPECT_EQ(Vocabulary::parse("\xEF\xBB\xBF" + header + "a\n", "v.txt").token(0), "a");
  EXPECT_SAYS(says(header + "a\nb"), "is cut off");
  EXPECT_SAYS(says(header + "a\n\nb\n"), "v.txt:3: the line is empty");
  EXPECT_SAYS(says(header + "a b\n"), "v.txt:2: byte 0x20");
  EXPECT_SAYS(says(header + "a\r\n"), "v.txt:2: byte 0x0d");
  EXPECT_SAYS(says("# deq vocabulary: word\r\na\r\nb\n"), "v.txt:3: the line ends with LF");
  EXPECT_SAYS(says("# deq vocabulary: word\r\na\r\n\n"), "v.txt:3: the line ends with LF");
  EXPECT_SAYS(says("# deq vocabulary: word\r\n\r\n"), "v.txt:2: the line is empty");
  EXPECT_SAYS(says("# deq vocabulary: word\r\na\r\r\n"), "v.txt:2: byte 0x0d");
  EXPECT_SAYS(says("# deq vocabulary: word\r"), "is cut off");
  EXPECT_SAYS(says(header + "\\q\n"), "unknown escape");
  EXPECT_SAYS(says(header + "\\x4\n"), "unknown escape");
  EXPECT_SAYS(says(header + "a\na\n"), "expected distinct tokens");
  Scratch scratch;
  EXPECT_SAYS(error_of([&] { Vocabulary::load(scratch / "none.txt"); }), "none.txt");
}

TEST(Vocabulary, DamagedFilesAreReadOrRefusedNeverWorse) {
  std::mt19937 random(3);
  for (int trial = 0; trial < 500; ++trial) {
    std::string text = Vocabulary(Unit::Word, awkward_tokens(random)).serialize();
    for (int change = 0; change < 3; ++change) {
      text[random() % text.size()] = "\n\\x\x00\xff# a"[random() % 8];
    }
    text.resize(text.size() - random() % 3);
    try {
      const Vocabulary read = Vocabulary::parse(text, "damaged");
      EXPECT_EQ(Vocabulary::parse(read.serialize(), "again").fingerprint(), read.fingerprint());
    } catch (const Error& error) {
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    }
  }
}

std::string utf8(uint32_t point) {
  if (point < 0x80) return {char(point)};
  if (point < 0x800) return {char(0xC0 | point >> 6), char(0x80 | (point & 63))};
  if (point < 0x10000) {
    return {char(0xE0 | point >> 12), char(0x80 | (point >> 6 & 63)), char(0x80 | (point & 63))};
  }
  return {char(0xF0 | point >> 18), char(0x80 | (point >> 12 & 63)), char(0x80 | (point >> 6 & 63)),
          char(0x80 | (point & 63))};
}

TEST(Utf8, AcceptsExactlyTheCodePoints) {
  std::set<std::string> known;
  for (uint32_t point = 0; point <= 0x10FFFF; ++point) {
    if (point >= 0xD800 && point < 0xE000) continue;
    const std::string text = utf8(point);
    ASSERT_EQ(utf8_length(text + "x", 0), text.size()) << point;
    ASSERT_EQ(utf8_length(text.substr(0, text.size() - 1), 0), 0u) << point;
    if (text.size() <= 3) known.insert(text);
  }
  // Of all two and three byte strings, no other is one character.
  size_t accepted = 128;
  for (uint32_t bits = 0; bits < 1u << 24; ++bits) {
    const std::string text = {char(bits), char(bits >> 8), char(bits >> 16)};
    const size_t length = utf8_length(text, 0);
    if (length == 3) ++accepted;
    if (length == 2 && text[2] == 0) ++accepted;
    ASSERT_LE(length, 3u);
  }
  EXPECT_EQ(accepted, known.size());
  for (const char* bad :
       {"\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xf0\x90\x80"}) {
    EXPECT_EQ(utf8_length(bad, 0), 0u);
  }
}

TEST(Utf8, FindsTheFirstBadByteAnywhere) {
  std::mt19937 random(4);
  for (int trial = 0; trial < 2000; ++trial) {
    std::string text;
    while (text.size() < random() % 40) text += utf8(random() % 2 ? random() % 128 : 0x4e00);
    EXPECT_EQ(find_invalid_utf8(text), std::string::npos);
    const size_t bad = text.size();
    text += "\xff";
    text += "tail of ASCII text";
    ASSERT_EQ(find_invalid_utf8(text), bad);
  }
}

TEST(Metric, IsPerplexityOrBits) {
  EXPECT_DOUBLE_EQ(metric_value(Unit::Word, std::log(50.0)), 50.0);
  EXPECT_DOUBLE_EQ(metric_value(Unit::Byte, std::log(8.0)), 3.0);
  EXPECT_DOUBLE_EQ(metric_value(Unit::Character, std::log(2.0)), 1.0);
  EXPECT_STREQ(metric_name(Unit::Word), "perplexity");
  EXPECT_STREQ(metric_name(Unit::Character), "bits per character");
  EXPECT_STREQ(unit_name(Unit::Byte), "byte");
}

}  // namespace
}  // namespace deq
