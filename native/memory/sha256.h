// SHA-256 (FIPS 180-4) by the SHA extensions of x86 (Intel SDM volume 2, SHA256RNDS2), two messages
// at a time: each round waits for the one before it, so one message leaves half of the unit idle.
#pragma once

#include "memory/digest.h"

namespace kvmsnap {

/// Whether this CPU has the instructions.
bool has_sha_instructions();

/// A digest for a CPU that has them. Its `update_two` with another of its kind is as fast as
/// `update`.
std::unique_ptr<Digest> make_instruction_sha256();

}  // namespace kvmsnap
