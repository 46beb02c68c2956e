/**
 * Whether a guest can run on a host: what its CPUID promises and the host's KVM does not support.
 */
import { cpuVendor } from './cpuid.js';
import { type CpuidEntry, type CpuidRegister, decodeCpuid, leafRegister } from './cpuid-entries.js';
import { FEATURE_REGISTERS, featureBit, featureName } from './feature-table.js';
import { xsaveLayout } from './xsave.js';

/**
 * Bits that say nothing about the host: they follow the guest's own CR4, APIC base or topology,
 * come from user space (hypervisor; TSC deadline mode has a capability), or report that old x87
 * fields are no longer kept, which no program relies on.
 */
const NOT_COMPARED = [
  'osxsave',
  'ospke',
  'apic',
  'ht',
  'cmp_legacy',
  'hypervisor',
  'tsc_deadline_timer',
  'fdp_excptn_only',
  'zero_fcs_fds',
].map(featureBit);

/** AMD's copy of the APIC bit, which has no name. */
const APIC_ALIAS = { leaf: 0x80000001, subleaf: 0, register: 'edx', bit: 9 } as const;

/** Fields that are amounts: a host must have at least the guest's. */
const AMOUNTS: readonly {
  name: string;
  leaf: number;
  register: CpuidRegister;
  low: number;
  width: number;
}[] = [
  { name: 'physical_address_bits', leaf: 0x80000008, register: 'eax', low: 0, width: 8 },
  { name: 'linear_address_bits', leaf: 0x80000008, register: 'eax', low: 8, width: 8 },
  { name: 'pmu_version', leaf: 0xa, register: 'eax', low: 0, width: 8 },
  { name: 'pmu_counters', leaf: 0xa, register: 'eax', low: 8, width: 8 },
  { name: 'pmu_counter_bits', leaf: 0xa, register: 'eax', low: 16, width: 8 },
  { name: 'pmu_fixed_counters', leaf: 0xa, register: 'edx', low: 0, width: 5 },
  { name: 'pmu_core_counters', leaf: 0x80000022, register: 'ebx', low: 0, width: 4 },
];

const entriesOf = (cpuid: Uint8Array | readonly CpuidEntry[]): readonly CpuidEntry[] =>
  cpuid instanceof Uint8Array ? decodeCpuid(cpuid) : cpuid;

/** The bits of a register that are compared. */
function comparedMask(leaf: number, subleaf: number, register: CpuidRegister): number {
  const skipped = [...NOT_COMPARED, APIC_ALIAS]
    .filter((at) => at.leaf === leaf && at.subleaf === subleaf && at.register === register)
    .reduce((mask, { bit }) => mask | (1 << bit), 0);
  return ~skipped >>> 0;
}

/**
 * What `guest` (its CPUID, from a snapshot) has and `supported` (this host's
 * KVM_GET_SUPPORTED_CPUID) lacks; empty when the guest can run. Features have the names of
 * /proc/cpuinfo; bits without one are `cpuid.LEAF.SUBLEAF.REGISTER[bit]`, in hexadecimal; XCR0 and
 * IA32_XSS components `xcr0_NAME`, `xss_NAME`; amounts `NAME=GUEST>HOST`; another vendor
 * `vendor=NAME`; an XSAVE component that lies elsewhere `xsave_layout[component]`.
 *
 * `guest` is what was given to KVM_SET_CPUID2. KVM on PVM answers KVM_GET_CPUID2 with bits of the
 * host's CPU added (XSAVE, AVX, SMEP, …) that it does not list as supported anywhere.
 */
export function missingFeatures(
  guest: Uint8Array | readonly CpuidEntry[],
  supported: Uint8Array | readonly CpuidEntry[],
): string[] {
  const ours = entriesOf(guest);
  const theirs = entriesOf(supported);
  return [
    ...missingVendor(ours, theirs),
    ...FEATURE_REGISTERS.flatMap(({ leaf, subleaf, register }) => {
      const wanted = leafRegister(ours, leaf, subleaf, register);
      const offered = leafRegister(theirs, leaf, subleaf, register);
      const missing = wanted & ~offered & comparedMask(leaf, subleaf, register);
      return bitsOf(missing).map((bit) => featureName({ leaf, subleaf, register, bit }));
    }),
    ...missingAmounts(ours, theirs),
    ...movedComponents(ours, theirs),
  ];
}

const bitsOf = (word: number): number[] =>
  Array.from({ length: 32 }, (_, bit) => bit).filter((bit) => (word >>> bit) & 1);

function missingVendor(guest: readonly CpuidEntry[], host: readonly CpuidEntry[]): string[] {
  const vendor = cpuVendor(guest);
  return vendor === cpuVendor(host) ? [] : [`vendor=${vendor}`];
}

function missingAmounts(guest: readonly CpuidEntry[], host: readonly CpuidEntry[]): string[] {
  return AMOUNTS.flatMap(({ name, leaf, register, low, width }) => {
    const field = (entries: readonly CpuidEntry[]) =>
      (leafRegister(entries, leaf, 0, register) >>> low) & (2 ** width - 1);
    const [wanted, offered] = [field(guest), field(host)];
    return wanted > offered ? [`${name}=${wanted}>${offered}`] : [];
  });
}

/** A saved XSAVE area is only right where its components lie at the same offsets. */
function movedComponents(guest: readonly CpuidEntry[], host: readonly CpuidEntry[]): string[] {
  const xcr0 = leafRegister(guest, 0xd, 0, 'eax') & leafRegister(host, 0xd, 0, 'eax');
  const places = xsaveLayout(host);
  return [...xsaveLayout(guest)]
    .filter(([bit, offset]) => (xcr0 >>> bit) & 1 && places.get(bit) !== offset)
    .map(([bit]) => `xsave_layout[${bit}]`);
}

/** The compared features that a CPUID has, by name, in the order of the table. */
export function presentFeatures(cpuid: Uint8Array | readonly CpuidEntry[]): string[] {
  return FEATURE_REGISTERS.flatMap(({ leaf, subleaf, register }) => {
    const value = leafRegister(entriesOf(cpuid), leaf, subleaf, register);
    return bitsOf(value & comparedMask(leaf, subleaf, register)).map((bit) =>
      featureName({ leaf, subleaf, register, bit }),
    );
  });
}
