// What the figures were measured on.
import { existsSync } from 'node:fs';
import { availableParallelism, cpus, loadavg, release } from 'node:os';

const KINDS = [
  ['kvm_pvm', 'PVM (software, no VMX or SVM)'],
  ['kvm_intel', 'VMX'],
  ['kvm_amd', 'SVM'],
];

function kvmKind() {
  const found = KINDS.find(([module]) => existsSync(`/sys/module/${module}`));
  return found ? found[1] : 'unknown';
}

export const load = () => loadavg()[0];

export function hostFacts() {
  return {
    cpu: cpus()[0]?.model ?? 'unknown CPU',
    cpus: availableParallelism(),
    kernel: release(),
    kvm: kvmKind(),
    node: process.versions.node,
  };
}
