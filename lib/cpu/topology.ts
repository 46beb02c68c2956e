/**
 * APIC ids and topology in CPUID: one package, one core for each vCPU, one thread in each core,
 * APIC id = vCPU number. Intel SDM volume 3, 9.9; AMD APM volume 3, E.4 and E.5.
 */
import { type CpuidEntry, findLeaf, KVM_CPUID_FLAG_SIGNIFICANT_INDEX } from './cpuid-entries.js';
import { clearFeature, setFeature } from './xcr0.js';

/** xAPIC ids are 0 to 254: 255 is broadcast. */
export const MAX_VCPUS = 255;

const LEVEL_SMT = 1;
const LEVEL_CORE = 2;

/** `value` with bits `low`..`low + width - 1` replaced; what does not fit is the largest that does. */
function withField(value: number, low: number, width: number, field: number): number {
  const max = 2 ** width - 1;
  const mask = (max << low) >>> 0;
  return ((value & ~mask) | ((Math.min(field, max) << low) & mask)) >>> 0;
}

/** Leaves 0xB and 0x1F: SMT, core, and the end of the list. */
function extendedTopology(leaf: number, vcpu: number, count: number, bits: number): CpuidEntry[] {
  const levels = [
    { eax: 0, ebx: 1, type: LEVEL_SMT },
    { eax: bits, ebx: count, type: LEVEL_CORE },
    { eax: 0, ebx: 0, type: 0 },
  ];
  return levels.map(({ eax, ebx, type }, index) => ({
    function: leaf,
    index,
    flags: KVM_CPUID_FLAG_SIGNIFICANT_INDEX,
    eax,
    ebx,
    ecx: (type << 8) | index,
    edx: vcpu,
  }));
}

/** Copies `entries` with everything that tells which CPU this is, for vCPU `vcpu` of `count`. */
export function withTopology(
  entries: readonly CpuidEntry[],
  vcpu: number,
  count: number,
  amd: boolean,
): CpuidEntry[] {
  /** Bits of an APIC id that tell cores apart. */
  const bits = Math.ceil(Math.log2(count));
  const ids = 2 ** bits;
  const result = entries.flatMap((entry) => {
    if (entry.function !== 0xb && entry.function !== 0x1f) return [{ ...entry }];
    // KVM gives what it knows of the host in any number of subleaves: written anew, once.
    return entry.index === 0 ? extendedTopology(entry.function, vcpu, count, bits) : [];
  });

  for (const entry of result) {
    switch (entry.function) {
      case 1:
        entry.ebx = withField(entry.ebx, 24, 8, vcpu);
        entry.ebx = withField(entry.ebx, 16, 8, ids);
        break;
      case 4:
        setCache(entry, ids);
        if (entry.eax & 0x1f) entry.eax = withField(entry.eax, 26, 6, ids - 1);
        break;
      case 0x80000008:
        if (amd) {
          entry.ecx = withField(entry.ecx, 0, 8, count - 1);
          entry.ecx = withField(entry.ecx, 12, 4, bits);
        }
        break;
      case 0x8000001d:
        setCache(entry, count);
        break;
      case 0x8000001e:
        if (amd) {
          entry.eax = vcpu;
          // One thread in the core; node 0 of one.
          entry.ebx = vcpu & 0xff;
          entry.ecx = 0;
        }
        break;
    }
  }

  // HTT says that leaf 1 counts more than one logical CPU, CmpLegacy that these are cores.
  const change = count > 1 ? setFeature : clearFeature;
  change(result, 'ht');
  if (amd && findLeaf(result, 0x80000001)) change(result, 'cmp_legacy');
  return result;
}

/** Leaves 4 and 0x8000001D: caches of levels 1 and 2 are a core's own, further ones shared by all. */
function setCache(entry: CpuidEntry, sharedBy: number): void {
  const type = entry.eax & 0x1f;
  if (type === 0) return;
  const level = (entry.eax >>> 5) & 7;
  entry.eax = withField(entry.eax, 14, 12, level >= 3 ? sharedBy - 1 : 0);
}
