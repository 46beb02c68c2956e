// Why a vCPU came back from KVM_RUN, as a sum type (Documentation/virt/kvm/api.rst, "struct
// kvm_run"). An exit that a newer kernel may add is `UnsupportedExit`.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <variant>
#include <vector>

#include "kvm/uapi.h"

namespace kvmsnap {

/// `data` points into kvm_run: an `in` is answered by writing to it before the next KVM_RUN.
struct IoExit {
  bool out = false;
  uint16_t port = 0;
  /// Bytes of one access: 1, 2 or 4. `data` has `count` of them (string instructions).
  uint8_t size = 0;
  uint32_t count = 0;
  std::span<uint8_t> data;
};
struct MmioExit {
  bool write = false;
  uint64_t gpa = 0;
  /// 1 to 8 bytes, in kvm_run.
  std::span<uint8_t> data;
};
struct HaltExit {};
struct DebugExit {
  uint32_t exception = 0;
  uint64_t pc = 0;
  uint64_t dr6 = 0;
  uint64_t dr7 = 0;
};
/// Triple fault.
struct ShutdownExit {};
struct SystemEventExit {
  /// KVM_SYSTEM_EVENT_*.
  uint32_t type = 0;
};
struct FailEntryExit {
  uint64_t reason = 0;
  uint32_t cpu = 0;
};
struct InternalErrorExit {
  /// KVM_INTERNAL_ERROR_*.
  uint32_t suberror = 0;
  std::vector<uint64_t> data;
};
/// KVM_RUN failed with this errno: EFAULT when guest memory could not be read.
struct ErrorExit {
  int error_number = 0;
};
/// A kick.
struct InterruptedExit {};
struct DirtyRingFullExit {};
struct UnsupportedExit {
  uint32_t reason = 0;
};

using Exit = std::variant<IoExit, MmioExit, HaltExit, DebugExit, ShutdownExit, SystemEventExit,
                          FailEntryExit, InternalErrorExit, ErrorExit, InterruptedExit,
                          DirtyRingFullExit, UnsupportedExit>;

/// `enter_errno` is what VcpuFd::enter returned. `run_size` bounds what an exit may point to.
Exit decode_exit(int enter_errno, kvm_run& run, size_t run_size);

/// Exits whose instruction KVM finishes at the next KVM_RUN only.
bool needs_completion(const Exit& exit);

}  // namespace kvmsnap
