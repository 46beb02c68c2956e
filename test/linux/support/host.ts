/** Whether Linux guests run on this machine. */
import { accessSync, constants, readFileSync } from 'node:fs';

/**
 * Why this tier cannot run here, if it cannot. Without a virtualisation extension of the CPU, KVM
 * (PVM) runs a kernel's ring 0 in its instruction emulator: minutes to nothing.
 */
export function whyNoLinux(): string | undefined {
  const how = 'run it in the emulated host: npm run test:emulated (docs/testing.md)';
  try {
    accessSync('/dev/kvm', constants.R_OK | constants.W_OK);
  } catch (error) {
    return `/dev/kvm cannot be used: ${(error as Error).message}; ${how}`;
  }
  if (!/^flags\s*:.*\b(svm|vmx)\b/m.test(readFileSync('/proc/cpuinfo', 'utf8'))) {
    return `this CPU has neither SVM nor VMX, so that no kernel boots under this KVM; ${how}`;
  }
  return undefined;
}
