// SHA-256 by the OpenSSL that Node brings along.
#pragma once

#include "memory/digest.h"

namespace kvmsnap {

std::unique_ptr<Digest> make_openssl_sha256();

}  // namespace kvmsnap
