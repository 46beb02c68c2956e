/** Machine states, decoded, compared field by field. */
import { decodeCpuid } from '../../../lib/cpu/cpuid-entries.js';
import { type MsrEntry, msrName } from '../../../lib/cpu/msrs.js';
import { VCPU_SECTIONS, VM_SECTIONS } from '../../../lib/cpu/sections.js';
import type { RawMachineState, RawVcpuState } from '../../../lib/native/binding.js';

/** Every named field by its path, and every section's bytes, so that what has no name counts too. */
export type FlatState = Map<string, string>;

function flatten(value: unknown, path: string, into: FlatState): void {
  if (value instanceof Uint8Array) {
    into.set(path, Buffer.from(value).toString('hex'));
  } else if (Array.isArray(value)) {
    value.forEach((item, i) => {
      flatten(item, `${path}[${i}]`, into);
    });
  } else if (typeof value === 'object' && value !== null) {
    for (const [key, item] of Object.entries(value)) flatten(item, `${path}.${key}`, into);
  } else {
    into.set(path, String(value));
  }
}

/** MSRs by name instead of by place. */
const byName = (entries: MsrEntry[]): Record<string, string> =>
  Object.fromEntries(
    entries.map(({ index, data }) => [
      msrName(index) ?? `0x${index.toString(16)}`,
      `0x${data.toString(16)}`,
    ]),
  );

function flattenVcpu(raw: RawVcpuState, path: string, into: FlatState): void {
  const cpuid = decodeCpuid(raw.cpuid2);
  for (const [name, section] of Object.entries(VCPU_SECTIONS)) {
    const bytes = raw[name as keyof typeof VCPU_SECTIONS];
    if (bytes === undefined || bytes.length === 0) continue;
    const value = section.decode(bytes, cpuid);
    flatten(name === 'msrs' ? byName(value as MsrEntry[]) : value, `${path}.${name}`, into);
    into.set(`${path}.${name} (bytes)`, Buffer.from(bytes).toString('hex'));
  }
  into.set(`${path}.tsc_khz`, String(raw.tsc_khz));
}

export function flatState(state: RawMachineState): FlatState {
  const flat: FlatState = new Map();
  for (const [name, section] of Object.entries(VM_SECTIONS)) {
    const bytes = state.vm[name as keyof typeof VM_SECTIONS];
    if (bytes === undefined) continue;
    flatten(section.decode(bytes), `vm.${name}`, flat);
    flat.set(`vm.${name} (bytes)`, Buffer.from(bytes).toString('hex'));
  }
  state.vcpus.forEach((vcpu, i) => {
    flattenVcpu(vcpu, `vcpus[${i}]`, flat);
  });
  flatten(state.devices, 'devices', flat);
  return flat;
}

/** What may differ after a save, a restore and a save, and why. */
export const EXPECTED_DIFFERENCES: readonly { path: RegExp; why: string }[] = [
  { path: /^vm\.clock\.clock$/, why: 'kvmclock goes on from where it stood' },
  {
    path: /^vm\.clock\.(flags|realtime|host_tsc)$/,
    why: "the host's own clocks at the instant of the call, for information",
  },
  { path: /\.msrs\.IA32_TSC$/, why: 'the TSC goes on from where it stood' },
  {
    path: /\.msrs\.HV_(TIME_REF_COUNT|VP_RUNTIME)$/,
    why: "Hyper-V's clocks, which KVM computes at each read, whether a guest uses them or not",
  },
  {
    path: /\.msrs\.IA32_SYSENTER_(ESP|EIP)$/,
    why: 'KVM on AMD keeps the low half of what is set: those CPUs have no SYSENTER in 64-bit mode',
  },
  {
    path: /\.msrs\.IA32_TSC_ADJUST$/,
    why: 'KVM moves it with a TSC that the host sets, on kernels that count it as the guest’s doing',
  },
  {
    path: /\.lapic\.timer_current_count$/,
    why: 'a count of time; KVM computes it from the deadline at each read',
  },
  {
    path: /\.lapic\.ppr$/,
    why: 'KVM computes it from TPR and ISR; in KVM_SET_LAPIC before it has counted the ISR, and again at its next use',
  },
  {
    path: /\.xsave2\.header\.xstate_bv$/,
    why: 'a CPU may say of a component that it is in use though all of it has its initial values',
  },
  {
    path: /^vm\.pit2\.channels\[\d\]\.count_load_time$/,
    why: 'host time at which the count began, which KVM_SET_PIT2 sets to now',
  },
];

export interface FieldDifference {
  path: string;
  before: string | undefined;
  after: string | undefined;
}

/** All differences but the expected ones. */
export function differences(before: RawMachineState, after: RawMachineState): FieldDifference[] {
  const a = flatState(before);
  const b = flatState(after);
  const all = [...new Set([...a.keys(), ...b.keys()])]
    .filter((path) => a.get(path) !== b.get(path))
    .map((path) => ({ path, before: a.get(path), after: b.get(path) }));
  const named = all.filter(({ path }) => !path.endsWith(' (bytes)'));
  return all.filter(({ path }) => {
    if (EXPECTED_DIFFERENCES.some((expected) => expected.path.test(path))) return false;
    // Bytes differ because a named field does, which is then judged by its name.
    const section = path.replace(/ \(bytes\)$/, '');
    return section === path || !named.some((other) => other.path.startsWith(`${section}.`));
  });
}
