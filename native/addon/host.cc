#include "addon/host.h"

#include <cpuid.h>

#include <array>
#include <utility>

#include "addon/convert.h"
#include "addon/environment.h"
#include "kvm/kvm.h"

namespace kvmsnap {

namespace {

// Names that headers older than the kernel lack (include/uapi/linux/kvm.h, Linux 6.18).
constexpr int kCapMemoryAttributes = 233;
constexpr int kCapGuestMemfd = 234;
constexpr int kCapPreFaultMemory = 236;

constexpr std::array<std::pair<const char*, int>, 44> kCapabilities = {{
    {"KVM_CAP_IRQCHIP", KVM_CAP_IRQCHIP},
    {"KVM_CAP_HLT", KVM_CAP_HLT},
    {"KVM_CAP_USER_MEMORY", KVM_CAP_USER_MEMORY},
    {"KVM_CAP_SET_TSS_ADDR", KVM_CAP_SET_TSS_ADDR},
    {"KVM_CAP_EXT_CPUID", KVM_CAP_EXT_CPUID},
    {"KVM_CAP_NR_VCPUS", KVM_CAP_NR_VCPUS},
    {"KVM_CAP_MAX_VCPUS", KVM_CAP_MAX_VCPUS},
    {"KVM_CAP_NR_MEMSLOTS", KVM_CAP_NR_MEMSLOTS},
    {"KVM_CAP_MP_STATE", KVM_CAP_MP_STATE},
    {"KVM_CAP_SYNC_MMU", KVM_CAP_SYNC_MMU},
    {"KVM_CAP_DESTROY_MEMORY_REGION_WORKS", KVM_CAP_DESTROY_MEMORY_REGION_WORKS},
    {"KVM_CAP_IRQ_ROUTING", KVM_CAP_IRQ_ROUTING},
    {"KVM_CAP_PIT2", KVM_CAP_PIT2},
    {"KVM_CAP_PIT_STATE2", KVM_CAP_PIT_STATE2},
    {"KVM_CAP_IRQFD", KVM_CAP_IRQFD},
    {"KVM_CAP_IOEVENTFD", KVM_CAP_IOEVENTFD},
    {"KVM_CAP_SET_IDENTITY_MAP_ADDR", KVM_CAP_SET_IDENTITY_MAP_ADDR},
    {"KVM_CAP_ADJUST_CLOCK", KVM_CAP_ADJUST_CLOCK},
    {"KVM_CAP_VCPU_EVENTS", KVM_CAP_VCPU_EVENTS},
    {"KVM_CAP_DEBUGREGS", KVM_CAP_DEBUGREGS},
    {"KVM_CAP_XSAVE", KVM_CAP_XSAVE},
    {"KVM_CAP_XSAVE2", KVM_CAP_XSAVE2},
    {"KVM_CAP_XCRS", KVM_CAP_XCRS},
    {"KVM_CAP_TSC_CONTROL", KVM_CAP_TSC_CONTROL},
    {"KVM_CAP_GET_TSC_KHZ", KVM_CAP_GET_TSC_KHZ},
    {"KVM_CAP_TSC_DEADLINE_TIMER", KVM_CAP_TSC_DEADLINE_TIMER},
    {"KVM_CAP_KVMCLOCK_CTRL", KVM_CAP_KVMCLOCK_CTRL},
    {"KVM_CAP_READONLY_MEM", KVM_CAP_READONLY_MEM},
    {"KVM_CAP_SET_GUEST_DEBUG", KVM_CAP_SET_GUEST_DEBUG},
    {"KVM_CAP_IMMEDIATE_EXIT", KVM_CAP_IMMEDIATE_EXIT},
    {"KVM_CAP_SYNC_REGS", KVM_CAP_SYNC_REGS},
    {"KVM_CAP_X86_SMM", KVM_CAP_X86_SMM},
    {"KVM_CAP_SPLIT_IRQCHIP", KVM_CAP_SPLIT_IRQCHIP},
    {"KVM_CAP_X2APIC_API", KVM_CAP_X2APIC_API},
    {"KVM_CAP_NESTED_STATE", KVM_CAP_NESTED_STATE},
    {"KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2", KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2},
    {"KVM_CAP_DIRTY_LOG_RING", KVM_CAP_DIRTY_LOG_RING},
    {"KVM_CAP_DIRTY_LOG_RING_ACQ_REL", KVM_CAP_DIRTY_LOG_RING_ACQ_REL},
    {"KVM_CAP_SREGS2", KVM_CAP_SREGS2},
    {"KVM_CAP_VM_TSC_CONTROL", KVM_CAP_VM_TSC_CONTROL},
    {"KVM_CAP_VM_GPA_BITS", KVM_CAP_VM_GPA_BITS},
    {"KVM_CAP_MEMORY_ATTRIBUTES", kCapMemoryAttributes},
    {"KVM_CAP_GUEST_MEMFD", kCapGuestMemfd},
    {"KVM_CAP_PRE_FAULT_MEMORY", kCapPreFaultMemory},
}};

// Leaves 0x80000002 to 0x80000004, EAX to EDX of each; zeros where the CPU has no such leaf. KVM
// gives none of them (arch/x86/kvm/cpuid.c, __do_cpuid_func).
std::array<uint32_t, 12> cpu_brand() {
  std::array<uint32_t, 12> registers{};
  uint32_t* to = registers.data();
  for (uint32_t leaf = 0x80000002; leaf <= 0x80000004; leaf++, to += 4) {
    __get_cpuid(leaf, &to[0], &to[1], &to[2], &to[3]);
  }
  return registers;
}

}  // namespace

Napi::Value host(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  return guard(env, [&]() -> Napi::Value {
    const Kvm& kvm = Kvm::instance();
    Napi::Object capabilities = Napi::Object::New(env);
    for (const auto& [name, number] : kCapabilities) {
      capabilities[name] = kvm.check_extension(number);
    }
    std::vector<kvm_cpuid_entry2> cpuid = kvm.supported_cpuid();
    std::vector<uint32_t> msrs = kvm.msr_index_list();
    auto indices = Napi::Uint32Array::New(env, msrs.size());
    std::copy(msrs.begin(), msrs.end(), indices.Data());

    Napi::Object object = Napi::Object::New(env);
    object["apiVersion"] = kvm.api_version();
    object["capabilities"] = capabilities;
    object["supportedCpuid"] = from_bytes(env, {reinterpret_cast<const uint8_t*>(cpuid.data()),
                                                cpuid.size() * sizeof(kvm_cpuid_entry2)});
    std::array<uint32_t, 12> brand = cpu_brand();
    object["brand"] = from_bytes(env, {reinterpret_cast<const uint8_t*>(brand.data()), 48});
    object["msrIndices"] = indices;
    // A vCPU's default frequency is the host's, and only a vCPU tells it.
    object["tscKhz"] = kvm.create_vm().create_vcpu(0).tsc_khz();
    object["vcpuMmapSize"] = static_cast<double>(kvm.vcpu_mmap_size());
    object["xsaveSize"] = std::max<double>(sizeof(kvm_xsave), kvm.check_extension(KVM_CAP_XSAVE2));
    return object;
  });
}

}  // namespace kvmsnap
