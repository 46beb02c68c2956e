// Keeps KVM at hand between machines.
#pragma once

namespace kvmsnap {

/// Called for each machine before its VM is made. From the second on this process holds a VM of its
/// own, with one vCPU, which never runs. It costs two descriptors and some 100 KiB of the kernel's
/// memory; it is not for who makes one machine only.
///
/// With the first VM of a host KVM switches virtualisation on, on every CPU, and patches the
/// kernel's code so that it knows of VMs (static keys: preempt_notifier_key in virt/kvm/kvm_main.c)
/// and of vCPUs without a LAPIC (kvm_has_noapic_vcpu in arch/x86/kvm/lapic.c); with the last it
/// takes all that back. Every CPU is interrupted each time: a fifth of what a small machine takes
/// to be made.
void keep_kvm_on();

}  // namespace kvmsnap
