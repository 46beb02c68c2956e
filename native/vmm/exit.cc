#include "vmm/exit.h"

#include <algorithm>
#include <cerrno>

namespace kvmsnap {

namespace {

Exit decode_io(kvm_run& run, size_t run_size) {
  size_t length = size_t{run.io.size} * run.io.count;
  if (run.io.data_offset > run_size || length > run_size - run.io.data_offset) {
    return UnsupportedExit{.reason = run.exit_reason};
  }
  return IoExit{.out = run.io.direction == KVM_EXIT_IO_OUT,
                .port = run.io.port,
                .size = run.io.size,
                .count = run.io.count,
                .data = {reinterpret_cast<uint8_t*>(&run) + run.io.data_offset, length}};
}

}  // namespace

Exit decode_exit(int enter_errno, kvm_run& run, size_t run_size) {
  // EAGAIN: a vCPU that waits for INIT or SIPI was woken by a signal.
  if (enter_errno == EINTR || enter_errno == EAGAIN) return InterruptedExit{};
  if (enter_errno != 0) return ErrorExit{.error_number = enter_errno};
  switch (run.exit_reason) {
    case KVM_EXIT_IO:
      return decode_io(run, run_size);
    case KVM_EXIT_MMIO:
      return MmioExit{
          .write = run.mmio.is_write != 0,
          .gpa = run.mmio.phys_addr,
          .data = {run.mmio.data, std::min<size_t>(run.mmio.len, sizeof run.mmio.data)}};
    case KVM_EXIT_HLT:
      return HaltExit{};
    case KVM_EXIT_DEBUG:
      return DebugExit{.exception = run.debug.arch.exception,
                       .pc = run.debug.arch.pc,
                       .dr6 = run.debug.arch.dr6,
                       .dr7 = run.debug.arch.dr7};
    case KVM_EXIT_SHUTDOWN:
      return ShutdownExit{};
    case KVM_EXIT_SYSTEM_EVENT:
      return SystemEventExit{.type = run.system_event.type};
    case KVM_EXIT_FAIL_ENTRY:
      return FailEntryExit{.reason = run.fail_entry.hardware_entry_failure_reason,
                           .cpu = run.fail_entry.cpu};
    case KVM_EXIT_INTERNAL_ERROR: {
      size_t count = std::min<size_t>(run.internal.ndata, std::size(run.internal.data));
      return InternalErrorExit{.suberror = run.internal.suberror,
                               .data = {run.internal.data, run.internal.data + count}};
    }
    case KVM_EXIT_INTR:
      return InterruptedExit{};
    case KVM_EXIT_DIRTY_RING_FULL:
      return DirtyRingFullExit{};
    default:
      return UnsupportedExit{.reason = run.exit_reason};
  }
}

bool needs_completion(const Exit& exit) {
  return std::holds_alternative<IoExit>(exit) || std::holds_alternative<MmioExit>(exit);
}

}  // namespace kvmsnap
