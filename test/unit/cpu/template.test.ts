import { expect, test } from 'vitest';
import { guestCpuid } from '../../../lib/cpu/cpuid.js';
import { findLeaf, leafRegister } from '../../../lib/cpu/cpuid-entries.js';
import {
  featureBit,
  featureName,
  featureNames,
  withDependents,
} from '../../../lib/cpu/feature-table.js';
import { applyTemplate } from '../../../lib/cpu/template.js';
import { hasFeature } from '../../../lib/cpu/xcr0.js';
import { INTEL, raw } from './hosts.js';

test('masking avx512f takes its family, its XSAVE components and their size', () => {
  const narrowed = applyTemplate(INTEL, { features: ['avx512f', 'amx_tile'] });
  for (const name of ['avx512f', 'avx512bw', 'avx512_vnni', 'avx512_fp16', 'amx_bf16']) {
    expect(hasFeature(INTEL, name), name).toBe(true);
    expect(hasFeature(narrowed, name), name).toBe(false);
  }
  expect(hasFeature(narrowed, 'avx2')).toBe(true);
  expect(findLeaf(narrowed, 0xd, 0)).toMatchObject({ eax: 0x207, ecx: 0xa88 });
  expect(narrowed.filter((entry) => entry.function === 0xd).map((entry) => entry.index)).toEqual([
    0, 1, 2, 9, 11, 12,
  ]);
});

test('clearing the bit by leaf has the same effect on XSAVE', () => {
  const narrowed = applyTemplate(INTEL, {
    clear: [{ leaf: 7, subleaf: 0, register: 'ebx', bits: 1 << 16 }],
  });
  expect(leafRegister(narrowed, 0xd, 0, 'eax')).toBe(0x60207);
});

test('clearing a component takes the features that need it', () => {
  const narrowed = applyTemplate(INTEL, { clear: [{ leaf: 0xd, register: 'eax', bits: 0x200 }] });
  expect(hasFeature(INTEL, 'pku')).toBe(true);
  expect(hasFeature(narrowed, 'pku')).toBe(false);
});

test('without xsave leaf 0xD is gone and so is AVX', () => {
  const narrowed = applyTemplate(INTEL, { features: ['xsave'] });
  expect(narrowed.some((entry) => entry.function === 0xd)).toBe(false);
  for (const name of ['xsave', 'avx', 'avx2', 'avx512f', 'fma', 'pku', 'amx_tile']) {
    expect(hasFeature(narrowed, name), name).toBe(false);
  }
});

test('clears only the named bits of the named register', () => {
  const narrowed = applyTemplate(INTEL, {
    clear: [{ leaf: 0x80000007, register: 'edx', bits: 0x80000100 }],
  });
  const changed = narrowed.filter((entry, i) => JSON.stringify(entry) !== JSON.stringify(INTEL[i]));
  expect(changed.map((entry) => entry.function)).toEqual([0xd, 0x80000007]);
  expect(changed[0]).toEqual({ ...findLeaf(INTEL, 0xd, 0), ebx: 576 });
  expect(changed[1]!.edx).toBe(0);
});

test('a leaf the host does not have is no error', () => {
  expect(() =>
    applyTemplate(INTEL, { clear: [{ leaf: 0x8000001e, register: 'eax', bits: 1 }] }),
  ).not.toThrow();
});

test('an empty template changes nothing but the reset value of 0xD EBX', () => {
  const same = INTEL.map((entry) =>
    entry.function === 0xd && entry.index === 0 ? { ...entry, ebx: 576 } : entry,
  );
  expect(applyTemplate(INTEL, {})).toEqual(same);
});

test('a template reaches the guest', () => {
  const guest = guestCpuid(
    {
      supported: raw(INTEL),
      vcpus: 1,
      irqchip: true,
      tscDeadlineTimer: true,
      template: { features: ['avx512f', 'hypervisor', 'tsc_deadline_timer'] },
    },
    0,
  );
  expect(hasFeature(guest, 'avx512f')).toBe(false);
  expect(hasFeature(guest, 'hypervisor')).toBe(false);
  expect(hasFeature(guest, 'tsc_deadline_timer')).toBe(false);
});

test.each([
  { features: ['avx1024'] },
  { clear: [{ leaf: 7, register: 'ebp' as 'ebx', bits: 1 }] },
  { clear: [{ leaf: 7, register: 'ebx' as const, bits: -1 }] },
  { clear: [{ leaf: 7, register: 'ebx' as const, bits: 2 ** 32 }] },
  { clear: [{ leaf: 0.5, register: 'ebx' as const, bits: 1 }] },
])('refuses %o', (template) => {
  expect(() => applyTemplate(INTEL, template)).toThrowError(
    expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
  );
});

test('the feature table has each name once, and every dependency is in it', () => {
  const names = featureNames();
  for (const name of names) {
    expect(featureName(featureBit(name))).toBe(name);
    for (const dependent of withDependents(name)) expect(() => featureBit(dependent)).not.toThrow();
  }
});

test.each([
  ['sse2', 1, 0, 'edx', 26],
  ['hypervisor', 1, 0, 'ecx', 31],
  ['avx512vl', 7, 0, 'ebx', 31],
  ['rdpid', 7, 0, 'ecx', 22],
  ['spec_ctrl_ssbd', 7, 0, 'edx', 31],
  ['xsaves', 0xd, 1, 'eax', 3],
  ['lm', 0x80000001, 0, 'edx', 29],
  ['mwaitx', 0x80000001, 0, 'ecx', 29],
  ['amd_ssbd', 0x80000008, 0, 'ebx', 24],
  ['avx_vnni', 7, 1, 'eax', 4],
  ['nonstop_tsc', 0x80000007, 0, 'edx', 8],
  ['kvm_clocksource_stable_bit', 0x40000001, 0, 'eax', 24],
] as const)('%s is where the manuals say', (name, leaf, subleaf, register, bit) => {
  expect(featureBit(name)).toEqual({ leaf, subleaf, register, bit });
});
