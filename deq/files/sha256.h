// Digests: of weights, of downloads, of vocabularies.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <string_view>

namespace deq {

/// SHA-256 of bytes that arrive in pieces.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void update(const void* from, size_t count);
  void update(std::string_view bytes) { update(bytes.data(), bytes.size()); }
  std::string hex();  ///< 64 lower-case digits; ends the digest

 private:
  void* context_;  // EVP_MD_CTX, kept out of this header
};
std::string sha256_hex(std::string_view bytes);
std::string sha256_hex_of_file(const std::filesystem::path& path);

}  // namespace deq
