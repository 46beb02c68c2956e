import { expect, test } from 'vitest';
import { guestCpuid, guestCpuids } from '../../../lib/cpu/cpuid.js';
import { type CpuidEntry, findLeaf } from '../../../lib/cpu/cpuid-entries.js';
import { missingFeatures } from '../../../lib/cpu/features.js';
import { hostFacts } from '../../../lib/cpu/host-facts.js';
import { applyTemplate } from '../../../lib/cpu/template.js';
import { AMD_PVM, INTEL, raw } from './hosts.js';

const guestOf = (host: readonly CpuidEntry[], vcpus = 2): CpuidEntry[] =>
  guestCpuid({ supported: raw(host), vcpus, irqchip: true, tscDeadlineTimer: true }, vcpus - 1);

/** A host with registers changed: `{ '7.0': { ebx: (word) => … } }`. */
function host(
  base: readonly CpuidEntry[],
  leaf: number,
  subleaf: number,
  change: (entry: CpuidEntry) => Partial<CpuidEntry>,
): CpuidEntry[] {
  const target = findLeaf(base, leaf, subleaf);
  expect(target).toBeDefined();
  return base.map((entry) => (entry === target ? { ...entry, ...change(entry) } : entry));
}

test('a guest runs on the host it was made on', () => {
  for (const made of [AMD_PVM, INTEL]) {
    for (const guest of guestCpuids({
      supported: raw(made),
      vcpus: 3,
      irqchip: true,
      tscDeadlineTimer: true,
    })) {
      expect(missingFeatures(guest, raw(made))).toEqual([]);
    }
  }
});

test('names what the host lacks, XCR0 components too', () => {
  const lesser = applyTemplate(INTEL, { features: ['avx512f'] });
  const missing = missingFeatures(guestOf(INTEL), lesser);
  expect(missing).toEqual(
    expect.arrayContaining(['avx512f', 'avx512_vnni', 'xcr0_opmask', 'xcr0_zmm_hi256']),
  );
  expect(missing.every((name) => /^(avx512|xcr0_)/.test(name))).toBe(true);
  expect(missingFeatures(guestOf(lesser), INTEL)).toEqual([]);
});

test('a bit without a name is reported by place', () => {
  const strange = host(guestOf(INTEL), 7, 1, ({ eax }) => ({ eax: eax | (1 << 9) }));
  expect(missingFeatures(strange, INTEL)).toEqual(['cpuid.7.1.eax[9]']);
  const xcr0 = host(guestOf(INTEL), 0xd, 0, () => ({ edx: 1 << 30 }));
  expect(missingFeatures(xcr0, INTEL)).toEqual(['cpuid.d.0.edx[30]']);
});

test('a leaf that the host does not have counts as zero', () => {
  const without7 = INTEL.filter((entry) => entry.function !== 7);
  expect(missingFeatures(guestOf(INTEL), without7)).toEqual(
    expect.arrayContaining(['fsgsbase', 'avx2', 'umip', 'fsrm', 'avx_vnni', 'psfd']),
  );
});

test('bits that follow the guest, topology or user space are not compared', () => {
  const dynamic = host(guestOf(INTEL), 1, 0, ({ ecx, edx }) => ({
    ecx: (ecx | (1 << 27) | (1 << 31) | (1 << 24)) >>> 0,
    edx: edx | (1 << 9) | (1 << 28),
  }));
  const bare = host(INTEL, 1, 0, ({ ecx, edx }) => ({
    ecx: (ecx & ~((1 << 27) | (1 << 31) | (1 << 24))) >>> 0,
    edx: (edx & ~((1 << 9) | (1 << 28))) >>> 0,
    ebx: 0x63400800,
  }));
  const ospke = host(dynamic, 7, 0, ({ ecx }) => ({ ecx: ecx | (1 << 4) }));
  const noOspke = host(bare, 7, 0, ({ ecx }) => ({ ecx: (ecx & ~(1 << 4)) >>> 0 }));
  expect(missingFeatures(ospke, noOspke)).toEqual([]);
});

test('KVM features are compared', () => {
  const old = host(INTEL, 0x40000001, 0, ({ eax }) => ({ eax: eax & ~(1 << 5) }));
  expect(missingFeatures(guestOf(INTEL), old)).toEqual(['kvm_steal_time']);
});

test('another vendor, fewer address bits, fewer counters', () => {
  expect(missingFeatures(guestOf(INTEL), AMD_PVM)).toContain('vendor=GenuineIntel');
  const narrow = host(INTEL, 0x80000008, 0, () => ({ eax: 0x302e }));
  expect(missingFeatures(guestOf(INTEL), narrow)).toEqual(['physical_address_bits=52>46']);
  expect(missingFeatures(guestOf(narrow), INTEL)).toEqual([]);
  const noPmu = host(INTEL, 0xa, 0, () => ({ eax: 0, edx: 0 }));
  expect(missingFeatures(guestOf(INTEL), noPmu)).toEqual([
    'pmu_version=2>0',
    'pmu_counters=8>0',
    'pmu_counter_bits=48>0',
    'pmu_fixed_counters=3>0',
  ]);
});

test('an XSAVE component at another offset', () => {
  const moved = host(INTEL, 0xd, 9, () => ({ ebx: 0x980 }));
  expect(missingFeatures(guestOf(INTEL), moved)).toEqual(['xsave_layout[9]']);
});

test('host facts of the recorded host', () => {
  const facts = hostFacts(raw(AMD_PVM), 2_449_998);
  expect(facts).toMatchObject({
    vendor: 'AuthenticAMD',
    brand: '',
    family: 0x19,
    model: 0x11,
    stepping: 1,
    tscKhz: 2_449_998,
  });
  expect(facts.features).toEqual(expect.arrayContaining(['sse2', 'x2apic', 'kvm_clocksource2']));
  expect(facts.features).not.toContain('avx');
  expect(facts.featureHash).toMatch(/^[0-9a-f]{64}$/);
});

test('host facts of the Intel host', () => {
  expect(hostFacts(raw(INTEL), 1)).toMatchObject({
    vendor: 'GenuineIntel',
    brand: 'Intel(R) Xeon(R) Test',
    family: 6,
    model: 0x8f,
    stepping: 8,
  });
});

test('the feature hash changes with a feature and not with topology', () => {
  const hash = (entries: readonly CpuidEntry[]) => hostFacts(raw(entries), 1).featureHash;
  const otherCpu = host(INTEL, 1, 0, () => ({ ebx: 0x07200800 }));
  expect(hash(otherCpu)).toBe(hash(INTEL));
  expect(hash(applyTemplate(INTEL, { features: ['pku'] }))).not.toBe(hash(INTEL));
});
