/** `struct kvm_cpuid_entry2[]`: KVM_GET_SUPPORTED_CPUID, KVM_GET_CPUID2, KVM_SET_CPUID2. */
import { decodeList, encodeList } from './list.js';
import { type Decoded, pad, struct, u32 } from './struct.js';

/** KVM_MAX_CPUID_ENTRIES. */
export const KVM_MAX_CPUID_ENTRIES = 256;
/** `flags`: the entry is for one subleaf, `index`. */
export const KVM_CPUID_FLAG_SIGNIFICANT_INDEX = 1;

export const KVM_CPUID_ENTRY2 = struct('kvm_cpuid_entry2', {
  /** Leaf: EAX of the instruction. */
  function: u32,
  /** Subleaf: ECX of the instruction, where `flags` says so. */
  index: u32,
  /** `KVM_CPUID_FLAG_SIGNIFICANT_INDEX`. */
  flags: u32,
  eax: u32,
  ebx: u32,
  ecx: u32,
  edx: u32,
  padding: pad(12),
});
export interface CpuidEntry extends Decoded<typeof KVM_CPUID_ENTRY2> {}
export type CpuidRegister = 'eax' | 'ebx' | 'ecx' | 'edx';

export const decodeCpuid = (raw: Uint8Array): CpuidEntry[] =>
  decodeList(KVM_CPUID_ENTRY2, KVM_MAX_CPUID_ENTRIES, raw);
export const encodeCpuid = (entries: readonly CpuidEntry[]): Uint8Array =>
  encodeList(KVM_CPUID_ENTRY2, KVM_MAX_CPUID_ENTRIES, entries);

/** The entry of a leaf (and subleaf 0 unless given), if there is one. */
export function findLeaf<E extends CpuidEntry>(
  entries: readonly E[],
  leaf: number,
  subleaf = 0,
): E | undefined {
  return entries.find(
    (entry) =>
      entry.function === leaf &&
      (entry.index === subleaf || !(entry.flags & KVM_CPUID_FLAG_SIGNIFICANT_INDEX)),
  );
}

/** A register of a leaf, 0 when the leaf is absent: what a CPU gives for a bit it lacks. */
export function leafRegister(
  entries: readonly CpuidEntry[],
  leaf: number,
  subleaf: number,
  register: CpuidRegister,
): number {
  return findLeaf(entries, leaf, subleaf)?.[register] ?? 0;
}
