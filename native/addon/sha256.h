// SHA-256 by the CPU, or on one without SHA instructions by the OpenSSL that Node brings along.
#pragma once

#include "memory/digest.h"

namespace kvmsnap {

std::unique_ptr<Digest> make_sha256();

}  // namespace kvmsnap
