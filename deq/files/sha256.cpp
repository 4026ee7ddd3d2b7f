#include "deq/files/sha256.h"

#include <openssl/evp.h>

#include <algorithm>
#include <vector>

#include "deq/files/files.h"

namespace deq {
namespace {

EVP_MD_CTX* context_of(void* context) { return static_cast<EVP_MD_CTX*>(context); }

void check(int ok) {
  if (ok != 1) throw Error("OpenSSL cannot compute SHA-256; is it disabled by a provider setting?");
}

}  // namespace

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
  const bool ready =
      context_ && EVP_DigestInit_ex(context_of(context_), EVP_sha256(), nullptr) == 1;
  if (!ready)
    EVP_MD_CTX_free(context_of(context_));  // no destructor runs when a constructor throws
  check(ready);
}

Sha256::~Sha256() { EVP_MD_CTX_free(context_of(context_)); }

void Sha256::update(const void* from, size_t count) {
  check(EVP_DigestUpdate(context_of(context_), from, count));
}

std::string Sha256::hex() {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  check(EVP_DigestFinal_ex(context_of(context_), digest, &size));
  std::string text;
  for (unsigned int i = 0; i < size; ++i) text += fmt::format("{:02x}", digest[i]);
  return text;
}

std::string sha256_hex(std::string_view bytes) {
  Sha256 sha;
  sha.update(bytes);
  return sha.hex();
}

std::string sha256_hex_of_file(const std::filesystem::path& path) {
  FileReader reader(path);
  Sha256 sha;
  std::vector<char> chunk(size_t{1} << 20);
  for (uint64_t left = reader.size(); left > 0;) {
    const size_t count = std::min<uint64_t>(left, chunk.size());
    reader.read(chunk.data(), count);
    sha.update(chunk.data(), count);
    left -= count;
  }
  return sha.hex();
}

}  // namespace deq
