// What this machine can run.

import { accessSync, constants, readFileSync } from 'node:fs';
import { ensureKernels } from '../emulated-host/kernels.mjs';
import { ensureCommands } from '../emulated-host/packages.mjs';

/** Why tier `kvm` cannot run here, or undefined. */
export function whyNoKvm() {
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
    return undefined;
  } catch (error) {
    return error.code === 'ENOENT'
      ? 'there is no /dev/kvm (enable virtualisation in the firmware, or nested virtualisation)'
      : `/dev/kvm cannot be opened (${error.code}): join the group kvm`;
  }
}

/** Why tier `linux` cannot run here, or undefined. */
export function whyNoLinux() {
  const reason = whyNoKvm();
  if (reason) return reason;
  // KVM without a virtualisation extension (PVM) runs a kernel's ring 0 in its instruction emulator.
  return /^flags\s*:.*\b(svm|vmx)\b/m.test(readFileSync('/proc/cpuinfo', 'utf8'))
    ? undefined
    : 'this CPU has neither SVM nor VMX: kernels do not boot under its KVM';
}

function whyNot(prepare) {
  try {
    prepare();
    return undefined;
  } catch (error) {
    return error.message;
  }
}

/** Fetches the kernels that tier `linux` boots; gives why they cannot be had, or undefined. */
export const prepareKernels = (log) => whyNot(() => ensureKernels({ log }));

/** Installs what the emulated host needs; gives why it cannot be had, or undefined. */
export const prepareEmulatedHost = (log) =>
  whyNot(() => {
    ensureCommands(['qemu-system-x86_64'], log);
    ensureKernels({ log });
  });
