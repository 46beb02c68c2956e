// Whether a guest whose CPU shut down had asked to be reset that way.
#pragma once

#include "memory/guest_memory.h"

namespace kvmsnap {

/// Linux with `reboot=t`, and other systems when all else failed, reboot by a triple fault: a PC's
/// chipset resets a CPU that shuts down. Before it they tell the firmware, in the BIOS data area,
/// how they want to be reset (IBM PC AT Technical Reference, RESET_FLAG at 0040:0072: 1234h is a
/// warm boot; Linux writes 0 for a cold one). lib/boot/firmware.ts leaves another value there, and
/// a mark that it did. False for guests without that mark, and when memory cannot be read.
bool asked_for_reset(const GuestMemory& memory);

}  // namespace kvmsnap
