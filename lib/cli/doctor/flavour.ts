/** Which KVM this is: what runs the guest's instructions. */
import type { Facts } from './facts.js';

export interface Flavour {
  kind: 'vmx' | 'svm' | 'pvm' | 'software' | 'none';
  /** The processor is a virtual one, so that guests are nested. */
  nested: boolean;
  summary: string;
}

/**
 * A vendor module takes the only place there is (`kvm_x86_vendor_init`, Linux
 * arch/x86/kvm/x86.c), so a loaded one is the one in use. A built-in one shows in /sys/module whether
 * it found its hardware or not: it counts only with its CPU flag. Where /sys is hidden (containers),
 * the flags decide: hardware KVM needs vmx or svm, so a KVM without them is something else.
 */
export function kvmFlavour({ modules, cpuFlags, device }: Facts): Flavour {
  const nested = cpuFlags.includes('hypervisor');
  const where = nested ? ', in a virtual machine (nested)' : '';
  const has = { vmx: cpuFlags.includes('vmx'), svm: cpuFlags.includes('svm') };
  if (!device.exists) {
    return { kind: 'none', nested, summary: `no KVM${where}` };
  }
  if (modules.includes('kvm_pvm')) {
    return {
      kind: 'pvm',
      nested,
      summary:
        'PVM: software virtualisation by shadow paging. 64-bit ring 3 runs at native speed; ring 0, ' +
        'real and protected mode are emulated at some 2 MIPS; distribution kernels do not boot',
    };
  }
  const vmx = has.vmx && (modules.includes('kvm_intel') || !has.svm);
  if (vmx) return { kind: 'vmx', nested, summary: `hardware: Intel VMX${where}` };
  if (has.svm) return { kind: 'svm', nested, summary: `hardware: AMD SVM${where}` };
  return {
    kind: 'software',
    nested,
    summary:
      'not hardware: the CPU shows neither vmx nor svm, so something else answers at /dev/kvm ' +
      '(perhaps PVM, whose module is hidden here). Linux guests may not boot',
  };
}
