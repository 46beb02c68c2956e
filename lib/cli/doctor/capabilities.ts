/**
 * What kvmsnap uses each KVM capability for, and what is lost where it is 0
 * (Documentation/virt/kvm/api.rst describes them).
 */
export interface CapabilityUse {
  /** `required`: nothing works without it. `wanted`: something is lost. `unused`: for information. */
  need: 'required' | 'wanted' | 'unused';
  /** What does not work, or works worse, without it. */
  lost: string;
}

const required = (lost: string): CapabilityUse => ({ need: 'required', lost });
const wanted = (lost: string): CapabilityUse => ({ need: 'wanted', lost });
const unused = (lost: string): CapabilityUse => ({ need: 'unused', lost });

const IRQCHIP = 'machines with interrupts (all Linux guests); use --no-irqchip for bare ones';

export const CAPABILITY_USES: Readonly<Record<string, CapabilityUse>> = {
  KVM_CAP_USER_MEMORY: required('guest RAM'),
  KVM_CAP_EXT_CPUID: required('telling a guest what its CPU can do'),
  KVM_CAP_IMMEDIATE_EXIT: required('pausing a running guest without losing the request'),
  KVM_CAP_SREGS2: required('saving control and segment registers'),
  KVM_CAP_XSAVE: required('saving floating point and vector registers'),
  KVM_CAP_XCRS: required('saving which vector registers are on'),
  KVM_CAP_DEBUGREGS: required('saving debug registers'),
  KVM_CAP_VCPU_EVENTS: required('saving pending exceptions and interrupts'),
  KVM_CAP_MP_STATE: required('saving whether a vCPU runs, waits or sleeps'),
  KVM_CAP_ADJUST_CLOCK: required('saving the paravirtual clock'),
  KVM_CAP_SYNC_MMU: required('freezing memory under a running guest'),
  KVM_CAP_DESTROY_MEMORY_REGION_WORKS: required('removing memory slots'),
  KVM_CAP_GET_TSC_KHZ: required('saving the speed of the time stamp counter'),
  KVM_CAP_IRQCHIP: wanted(IRQCHIP),
  KVM_CAP_PIT2: wanted(IRQCHIP),
  KVM_CAP_PIT_STATE2: wanted(IRQCHIP),
  KVM_CAP_HLT: wanted('idle guests leave the processor to others'),
  KVM_CAP_SET_TSS_ADDR: wanted('real mode on older Intel processors'),
  KVM_CAP_SET_IDENTITY_MAP_ADDR: wanted('real mode on older Intel processors'),
  KVM_CAP_NR_VCPUS: unused('the number of vCPUs that KVM recommends'),
  KVM_CAP_MAX_VCPUS: wanted('more than one vCPU'),
  KVM_CAP_NR_MEMSLOTS: wanted('more than a few memory slots'),
  KVM_CAP_IRQ_ROUTING: wanted('routes of interrupts'),
  KVM_CAP_IRQFD: wanted('device interrupts without a system call of the vCPU thread'),
  KVM_CAP_IOEVENTFD: wanted('device doorbells without an exit to user space'),
  KVM_CAP_TSC_DEADLINE_TIMER: wanted('the timer that Linux guests prefer; they use another'),
  KVM_CAP_KVMCLOCK_CTRL: wanted('Linux guests may report a soft lockup after a long pause'),
  KVM_CAP_XSAVE2: wanted('vector state above 4 KiB (AMX)'),
  KVM_CAP_TSC_CONTROL: wanted('restoring snapshots of hosts with another TSC frequency'),
  KVM_CAP_VM_TSC_CONTROL: unused('a TSC frequency for a whole machine at once'),
  KVM_CAP_READONLY_MEM: wanted('read-only memory slots'),
  KVM_CAP_SET_GUEST_DEBUG: wanted('single step and breakpoints'),
  KVM_CAP_SYNC_REGS: wanted('reading registers without system calls: pauses take longer'),
  KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2: wanted('clearing the dirty log in pieces (manualDirtyLog)'),
  KVM_CAP_DIRTY_LOG_RING: wanted('dirty tracking by ring'),
  KVM_CAP_DIRTY_LOG_RING_ACQ_REL: wanted('dirty tracking by ring on weakly ordered hosts'),
  KVM_CAP_X86_SMM: unused('system management mode in guests'),
  KVM_CAP_SPLIT_IRQCHIP: unused('interrupt controllers half in user space'),
  KVM_CAP_X2APIC_API: unused('x2APIC ids above 255'),
  KVM_CAP_NESTED_STATE: unused('saving guests that run guests of their own'),
  KVM_CAP_VM_GPA_BITS: unused('guest address width for each machine'),
  KVM_CAP_MEMORY_ATTRIBUTES: unused('private guest memory'),
  KVM_CAP_GUEST_MEMFD: unused('guest memory that the host cannot map'),
  KVM_CAP_PRE_FAULT_MEMORY: unused('mapping guest memory ahead of its first touch'),
};
