// A machine's whole state but its memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "vmm/device_fields.h"
#include "vmm/vcpu_state.h"
#include "vmm/vm_state.h"

namespace kvmsnap {

/// How the guest has ended a machine, which does not run on from there.
struct StoppedState {
  /// As in NativeStop (lib/native/binding.ts).
  std::string reason;
  std::optional<uint32_t> code;
};

struct MachineState {
  VmState vm;
  std::vector<VcpuState> vcpus;
  DeviceStates devices;
  std::optional<StoppedState> stopped;
};

}  // namespace kvmsnap
