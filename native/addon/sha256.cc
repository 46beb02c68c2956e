#include "addon/sha256.h"

#include <openssl/evp.h>

#include "kvm/error.h"
#include "memory/sha256.h"

namespace kvmsnap {

namespace {

class OpensslSha256 final : public Digest {
 public:
  OpensslSha256() : context_(EVP_MD_CTX_new()) {
    check(context_ != nullptr && EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) == 1);
  }
  ~OpensslSha256() override { EVP_MD_CTX_free(context_); }
  OpensslSha256(const OpensslSha256&) = delete;
  OpensslSha256& operator=(const OpensslSha256&) = delete;

  void update(std::span<const uint8_t> bytes) override {
    check(EVP_DigestUpdate(context_, bytes.data(), bytes.size()) == 1);
  }
  Sha256 finish() override {
    Sha256 digest;
    check(EVP_DigestFinal_ex(context_, digest.data(), nullptr) == 1);
    return digest;
  }

 private:
  static void check(bool good) {
    if (!good) throw Error("ERR_SYSTEM", "OpenSSL could not compute a SHA-256 digest");
  }

  EVP_MD_CTX* context_;
};

}  // namespace

std::unique_ptr<Digest> make_sha256() {
  if (has_sha_instructions()) return make_instruction_sha256();
  return std::make_unique<OpensslSha256>();
}

}  // namespace kvmsnap
