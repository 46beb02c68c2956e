import { describe, expect, test } from 'vitest';
import {
  brandOf,
  cpuVendor,
  type GuestCpuidOptions,
  guestCpuid,
  guestCpuids,
} from '../../../lib/cpu/cpuid.js';
import {
  type CpuidEntry,
  decodeCpuid,
  findLeaf,
  leafRegister,
} from '../../../lib/cpu/cpuid-entries.js';
import { hasFeature } from '../../../lib/cpu/xcr0.js';
import { AMD_PVM, INTEL, raw } from './hosts.js';

const options = (
  host: readonly CpuidEntry[],
  changes: Partial<GuestCpuidOptions> = {},
): GuestCpuidOptions => ({
  supported: raw(host),
  vcpus: 1,
  irqchip: true,
  tscDeadlineTimer: true,
  ...changes,
});
const bits = (word: number, low: number, width: number) => (word >>> low) & (2 ** width - 1);

describe('the brand string', () => {
  const text = 'AMD EPYC of a test'.padEnd(48, '\0');
  // A view that does not begin where its buffer does.
  const brand = Buffer.concat([Buffer.alloc(4), Buffer.from(text)]).subarray(4);

  test("is the host's where KVM gives zeros", () => {
    const guest = guestCpuid(options(AMD_PVM, { brand }), 0);
    expect(brandOf(guest)).toBe('AMD EPYC of a test');
    expect(findLeaf(guest, 0x80000002)!.eax).toBe(0x20444d41);
    expect(brandOf(guestCpuid(options(AMD_PVM), 0))).toBe('');
  });

  test("is the host's where KVM leaves the leaves out", () => {
    const host = AMD_PVM.filter(({ function: leaf }) => leaf < 0x80000002 || leaf > 0x80000004);
    expect(brandOf(guestCpuid(options(host, { brand }), 0))).toBe('AMD EPYC of a test');
  });

  test("is KVM's where it gives one", () => {
    expect(brandOf(guestCpuid(options(INTEL, { brand }), 0))).toBe('Intel(R) Xeon(R) Test');
  });
});

describe.each([
  ['recorded AMD', AMD_PVM],
  ['Intel', INTEL],
])('guest CPUID on %s', (_name, host) => {
  test('has no bit that KVM does not support, topology and user space bits apart', () => {
    const allowed: Record<string, number> = {
      '1.ecx': (1 << 31) | (1 << 24),
      '1.edx': 1 << 28,
      '80000001.ecx': 1 << 1,
    };
    const guest = guestCpuid(options(host, { vcpus: 4 }), 3);
    const topology = [0xb, 0x1f, 0x8000001e, 4, 0x8000001d, 0x80000008];
    for (const entry of guest.filter(({ function: leaf }) => !topology.includes(leaf))) {
      for (const register of ['ecx', 'edx'] as const) {
        if (entry.function === 0xd && entry.index !== 1) continue;
        const supported = leafRegister(host, entry.function, entry.index, register);
        const more = allowed[`${entry.function.toString(16)}.${register}`] ?? 0;
        expect(
          entry[register] & ~(supported | more),
          `${entry.function.toString(16)} ${register}`,
        ).toBe(0);
      }
    }
  });

  test('has the hypervisor bit and the KVM leaves', () => {
    const guest = guestCpuid(options(host), 0);
    expect(hasFeature(guest, 'hypervisor')).toBe(true);
    expect(findLeaf(guest, 0x40000000)).toEqual(findLeaf(host, 0x40000000));
    expect(findLeaf(guest, 0x40000001)).toEqual(findLeaf(host, 0x40000001));
  });

  test('keeps vendor, signature, brand and the invariant TSC', () => {
    const guest = guestCpuid(options(host), 0);
    expect(cpuVendor(guest)).toBe(cpuVendor(host));
    expect(leafRegister(guest, 1, 0, 'eax')).toBe(leafRegister(host, 1, 0, 'eax'));
    expect(findLeaf(guest, 0x80000002)).toEqual(findLeaf(host, 0x80000002));
    expect(hasFeature(guest, 'nonstop_tsc')).toBe(true);
  });

  test.each([
    [true, true, true],
    [true, false, false],
    [false, true, false],
  ])('irqchip %s and capability %s give TSC deadline %s', (irqchip, tscDeadlineTimer, expected) => {
    const guest = guestCpuid(options(host, { irqchip, tscDeadlineTimer }), 0);
    expect(hasFeature(guest, 'tsc_deadline_timer')).toBe(expected);
  });

  test('without an irqchip nothing speaks of an APIC', () => {
    const guest = guestCpuid(options(host, { irqchip: false }), 0);
    expect(hasFeature(guest, 'apic')).toBe(false);
    expect(hasFeature(guest, 'x2apic')).toBe(false);
    expect(bits(leafRegister(guest, 0x80000001, 0, 'edx'), 9, 1)).toBe(0);
    expect(leafRegister(guest, 0x40000001, 0, 'eax')).toBe(0x01007efb & 0x0103112f);
    const with_ = guestCpuid(options(host), 0);
    expect(hasFeature(with_, 'apic')).toBe(true);
    expect(hasFeature(with_, 'x2apic')).toBe(true);
  });

  test('tells each vCPU its APIC id wherever it stands', () => {
    for (const vcpus of [1, 2, 3, 8, 255]) {
      const all = guestCpuids(options(host, { vcpus })).map(decodeCpuid);
      expect(all).toHaveLength(vcpus);
      all.forEach((guest, vcpu) => {
        expect(bits(leafRegister(guest, 1, 0, 'ebx'), 24, 8)).toBe(vcpu);
        for (const leaf of [0xb, 0x1f].filter((leaf) => findLeaf(host, leaf))) {
          const levels = guest.filter((entry) => entry.function === leaf);
          expect(levels.map((level) => level.edx)).toEqual([vcpu, vcpu, vcpu]);
          expect(levels.map((level) => level.ecx)).toEqual([0x100, 0x201, 0x2]);
          expect(levels.map((level) => level.ebx)).toEqual([1, vcpus, 0]);
          expect(2 ** levels[1]!.eax).toBeGreaterThanOrEqual(vcpus);
          expect(2 ** levels[1]!.eax).toBeLessThan(2 * vcpus);
        }
      });
    }
  });

  test('keeps CLFLUSH size and counts logical CPUs in leaf 1', () => {
    const ebx = leafRegister(guestCpuid(options(host, { vcpus: 3 }), 1), 1, 0, 'ebx');
    expect(ebx).toBe(0x01040800);
    expect(hasFeature(guestCpuid(options(host, { vcpus: 3 }), 1), 'ht')).toBe(true);
    expect(hasFeature(guestCpuid(options(host), 0), 'ht')).toBe(false);
  });

  test('offers nothing that snapshots cannot carry', () => {
    const guest = guestCpuid(options(host), 0);
    for (const name of ['vmx', 'svm', 'sgx', 'sgx_lc', 'shstk']) {
      expect(hasFeature(guest, name), name).toBe(false);
    }
    expect(findLeaf(guest, 0x12)).toBeUndefined();
    expect(findLeaf(guest, 0x8000000a)).toBeUndefined();
  });

  test('does not touch its input', () => {
    const supported = raw(host);
    const before = supported.slice();
    guestCpuids(options(host, { supported, vcpus: 2, template: { features: ['avx'] } }));
    expect(supported).toEqual(before);
  });
});

test('the Intel host offers what is taken away, so the tests above can fail', () => {
  for (const name of [
    'vmx',
    'sgx',
    'sgx_lc',
    'shstk',
    'avx512f',
    'amx_tile',
    'pku',
    'xsave',
    'ht',
  ]) {
    expect(hasFeature(INTEL, name), name).toBe(true);
  }
});

test('Intel caches: levels 1 and 2 private, level 3 shared, cores counted', () => {
  const guest = guestCpuid(options(INTEL, { vcpus: 4 }), 0);
  const caches = guest.filter((entry) => entry.function === 4);
  expect(caches.map(({ eax }) => bits(eax, 14, 12))).toEqual([0, 0, 0, 3, 0]);
  expect(caches.map(({ eax }) => bits(eax, 26, 6))).toEqual([3, 3, 3, 3, 0]);
  expect(caches.map(({ eax }) => bits(eax, 0, 14))).toEqual(
    INTEL.filter((entry) => entry.function === 4).map(({ eax }) => bits(eax, 0, 14)),
  );
});

test('AMD topology: core count, APIC id size, extended APIC id, CmpLegacy', () => {
  const guest = guestCpuid(options(AMD_PVM, { vcpus: 6 }), 5);
  const size = leafRegister(guest, 0x80000008, 0, 'ecx');
  expect(bits(size, 0, 8)).toBe(5);
  expect(bits(size, 12, 4)).toBe(3);
  expect(findLeaf(guest, 0x8000001e)).toMatchObject({ eax: 5, ebx: 5, ecx: 0 });
  expect(hasFeature(guest, 'cmp_legacy')).toBe(true);
  expect(hasFeature(guestCpuid(options(AMD_PVM), 0), 'cmp_legacy')).toBe(false);
  const caches = guest.filter((entry) => entry.function === 0x8000001d);
  expect(caches.map(({ eax }) => bits(eax, 14, 12))).toEqual([0, 0, 0, 5, 0]);
});

test('Intel has nothing of AMD topology', () => {
  expect(leafRegister(guestCpuid(options(INTEL, { vcpus: 6 }), 5), 0x80000008, 0, 'ecx')).toBe(0);
});

test('XSAVE components that KVM gives without the features are kept (KVM on PVM)', () => {
  const guest = guestCpuid(options(AMD_PVM), 0);
  expect(hasFeature(guest, 'xsave')).toBe(false);
  expect(findLeaf(guest, 0xd, 0)).toMatchObject({ eax: 0xe7, ebx: 576, ecx: 0x980 });
  expect(guest.filter((entry) => entry.function === 0xd)).toHaveLength(6);
});

test('a feature whose XSAVE component KVM does not give is taken away', () => {
  const withoutAmxPermission = INTEL.filter(
    (entry) => entry.function !== 0xd || (entry.index !== 17 && entry.index !== 18),
  ).map((entry) =>
    entry.function === 0xd && entry.index === 0 ? { ...entry, eax: 0x2e7, ecx: 0xa88 } : entry,
  );
  const guest = guestCpuid(options(withoutAmxPermission), 0);
  for (const name of ['amx_tile', 'amx_bf16', 'amx_int8', 'xfd']) {
    expect(hasFeature(guest, name), name).toBe(false);
  }
  expect(hasFeature(guest, 'avx512f')).toBe(true);
});

test.each([
  ['no vCPU', { vcpus: 0 }, 0],
  ['more vCPUs than xAPIC ids', { vcpus: 256 }, 0],
  ['half a vCPU', { vcpus: 1.5 }, 0],
  ['a vCPU past the last', { vcpus: 2 }, 2],
  ['a negative vCPU', { vcpus: 2 }, -1],
  ['a cut entry', { supported: new Uint8Array(39) }, 0],
  ['no entries', { supported: new Uint8Array(0) }, 0],
  ['too many entries', { supported: new Uint8Array(257 * 40) }, 0],
])('refuses %s', (_name, changes, vcpu) => {
  expect(() => guestCpuid(options(AMD_PVM, changes), vcpu)).toThrowError(
    expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
  );
});
