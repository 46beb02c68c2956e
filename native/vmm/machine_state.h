// A machine's whole state but its memory.
#pragma once

#include <vector>

#include "vmm/device_fields.h"
#include "vmm/vcpu_state.h"
#include "vmm/vm_state.h"

namespace kvmsnap {

struct MachineState {
  VmState vm;
  std::vector<VcpuState> vcpus;
  DeviceStates devices;
};

}  // namespace kvmsnap
