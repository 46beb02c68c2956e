/** Keeping CPUID leaf 0xD (XSAVE components) and the features that need them in step. */
import { type CpuidEntry, findLeaf, leafRegister } from './cpuid-entries.js';
import { featureBit, withDependents } from './feature-table.js';

/** Bytes of the legacy region and the header: an XSAVE area with x87 and SSE alone. */
const XSAVE_MIN_SIZE = 576;

/** XCR0 component bits that a feature is useless without. Intel SDM volume 1, 13.1 and 13.3. */
const NEEDED_COMPONENTS: Readonly<Record<string, number>> = {
  avx: 0x4,
  mpx: 0x18,
  avx512f: 0xe0,
  pku: 0x200,
  amx_tile: 0x60000,
};

/** Whether the feature is there. */
export function hasFeature(entries: readonly CpuidEntry[], name: string): boolean {
  const { leaf, subleaf, register, bit } = featureBit(name);
  return ((leafRegister(entries, leaf, subleaf, register) >>> bit) & 1) === 1;
}

/** Clears a feature's bit, in place. */
export function clearFeature(entries: readonly CpuidEntry[], name: string): void {
  const { leaf, subleaf, register, bit } = featureBit(name);
  const entry = findLeaf(entries, leaf, subleaf);
  if (entry) entry[register] = (entry[register] & ~(1 << bit)) >>> 0;
}

/** Sets a feature's bit, in place, where its leaf is there. */
export function setFeature(entries: readonly CpuidEntry[], name: string): void {
  const { leaf, subleaf, register, bit } = featureBit(name);
  const entry = findLeaf(entries, leaf, subleaf);
  if (entry) entry[register] = (entry[register] | (1 << bit)) >>> 0;
}

/**
 * `entries` after features were cleared from `before`: components whose feature went away go too,
 * features whose component is not there go, and the sizes of leaf 0xD follow.
 *
 * A component is kept when KVM gave it without the feature (KVM on PVM hides XSAVE and AVX, yet
 * ring-3 guests can use the registers): KVM saves only components that leaf 0xD names.
 */
export function alignXsave(
  entries: readonly CpuidEntry[],
  before: readonly CpuidEntry[],
): CpuidEntry[] {
  const leaf = findLeaf(entries, 0xd, 0);
  if (leaf === undefined || leaf.eax === 0) return [...entries];
  if (hasFeature(before, 'xsave') && !hasFeature(entries, 'xsave')) {
    return entries.filter((entry) => entry.function !== 0xd);
  }
  for (const [name, components] of Object.entries(NEEDED_COMPONENTS)) {
    if (hasFeature(before, name) && !hasFeature(entries, name)) {
      leaf.eax = (leaf.eax & ~components) >>> 0;
    }
    if (hasFeature(entries, name) && (leaf.eax & components) !== components) {
      for (const dependent of withDependents(name)) clearFeature(entries, dependent);
    }
  }
  const extended = findLeaf(entries, 0xd, 1);
  const present = (component: number): boolean => {
    const [user, supervisor] =
      component < 32 ? [leaf.eax, extended?.ecx ?? 0] : [leaf.edx, extended?.edx ?? 0];
    return (((user | supervisor) >>> (component % 32)) & 1) === 1;
  };
  const kept = entries.filter(
    (entry) => entry.function !== 0xd || entry.index < 2 || present(entry.index),
  );
  // KVM computes EBX from the guest's XCR0 as it changes; this is its value at reset.
  leaf.ebx = XSAVE_MIN_SIZE;
  leaf.ecx = Math.max(
    XSAVE_MIN_SIZE,
    ...kept
      .filter((entry) => entry.function === 0xd && entry.index >= 2 && !(entry.ecx & 1))
      .map((entry) => entry.ebx + entry.eax),
  );
  return kept;
}
