/** Whether a host can restore a snapshot, and what differs where it cannot. */
import { KvmsnapError } from '../errors.js';
import type { NativeHost, RawMachineState } from '../native/binding.js';
import type { SnapshotConfig } from './config.js';

export type Difference =
  | { kind: 'architecture'; found: string; expected: string }
  | { kind: 'capability'; name: string; found: number; required: number }
  | { kind: 'cpu-feature'; vcpu: number; missing: string[] }
  | { kind: 'xsave'; found: number; required: number }
  | { kind: 'tsc'; foundKhz: number; requiredKhz: number };

export interface CompatibilityOptions {
  /** Features in a guest's CPUID that the host's KVM does not offer (`kvm_cpuid_entry2[]`, both). */
  missingFeatures(guestCpuid: Uint8Array, hostSupportedCpuid: Uint8Array): string[];
  /** Differences to let pass; the guest then sees them. */
  ignore?: readonly Difference['kind'][];
}

/** KVM takes a TSC frequency as equal within this (kvm.tsc_tolerance_ppm, kernel-parameters.txt). */
const TSC_TOLERANCE_PPM = 250;
const ARCHITECTURE = 'amd64';

export function requireArchitecture(config: SnapshotConfig): void {
  if (config.architecture !== ARCHITECTURE) {
    const expected = ARCHITECTURE;
    refuse([{ kind: 'architecture', found: config.architecture, expected }]);
  }
}

/** Every way in which `host` falls short of what the snapshot needs. */
export function findDifferences(
  snapshot: { config: SnapshotConfig; state: RawMachineState },
  host: NativeHost,
  options: CompatibilityOptions,
): Difference[] {
  const { config, state } = snapshot;
  const found: Difference[] = [];
  for (const [name, required] of Object.entries(config.requires.capabilities)) {
    // `Object.hasOwn`: a hostile name such as `constructor` must not be found on the prototype.
    const value = Object.hasOwn(host.capabilities, name) ? (host.capabilities[name] ?? 0) : 0;
    if (value < required) found.push({ kind: 'capability', name, found: value, required });
  }
  const canScaleTsc = (host.capabilities.KVM_CAP_TSC_CONTROL ?? 0) > 0;
  state.vcpus.forEach((vcpu, i) => {
    const missing = options.missingFeatures(vcpu.cpuid2, host.supportedCpuid);
    if (missing.length > 0) found.push({ kind: 'cpu-feature', vcpu: i, missing });
    const required = vcpu.xsave2.length;
    if (required > host.xsaveSize) found.push({ kind: 'xsave', found: host.xsaveSize, required });
    if (!canScaleTsc && tscDiffers(vcpu.tsc_khz, host.tscKhz)) {
      found.push({ kind: 'tsc', foundKhz: host.tscKhz, requiredKhz: vcpu.tsc_khz });
    }
  });
  const ignored = options.ignore ?? [];
  return found.filter(({ kind }) => !ignored.includes(kind));
}

/** `ERR_SNAPSHOT_INCOMPATIBLE` with `details: Difference[]` unless the host has all that it needs. */
export function requireCompatible(
  snapshot: { config: SnapshotConfig; state: RawMachineState },
  host: NativeHost,
  options: CompatibilityOptions,
): void {
  const differences = findDifferences(snapshot, host, options);
  if (differences.length > 0) refuse(differences, snapshot.config);
}

function tscDiffers(guestKhz: number, hostKhz: number): boolean {
  // 0: KVM does not know; there is nothing to compare.
  if (guestKhz === 0 || hostKhz === 0) return false;
  return Math.abs(guestKhz - hostKhz) * 1e6 > hostKhz * TSC_TOLERANCE_PPM;
}

function refuse(differences: Difference[], config?: SnapshotConfig): never {
  const lines = [...new Set(differences.map(describe))];
  const cpu = config?.host.cpu;
  const origin = cpu
    ? ` It was taken on ${cpu.vendor} family ${cpu.family} model ${cpu.model}, ` +
      `Linux ${config.host.kernel}: restore it on a like host, or take it again with a ` +
      'narrower CPU template.'
    : '';
  throw new KvmsnapError(
    'ERR_SNAPSHOT_INCOMPATIBLE',
    `this host cannot restore the snapshot: ${lines.join('; ')}.${origin}`,
    { details: differences },
  );
}

function describe(difference: Difference): string {
  switch (difference.kind) {
    case 'architecture':
      return `it is of architecture ${difference.found}, not ${difference.expected}`;
    case 'capability':
      return `${difference.name} is ${difference.found} here and must be ${difference.required}`;
    case 'cpu-feature':
      return `CPU features missing here: ${difference.missing.join(', ')}`;
    case 'xsave':
      return `its XSAVE area has ${difference.required} bytes, this host's ${difference.found}`;
    case 'tsc':
      return (
        `its TSC runs at ${difference.requiredKhz} kHz, this host's at ${difference.foundKhz} ` +
        'and cannot be scaled (no KVM_CAP_TSC_CONTROL)'
      );
  }
}
