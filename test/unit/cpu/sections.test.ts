import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { decodeMsrs, encodeMsrs, MSR, msrIndex, msrName } from '../../../lib/cpu/msrs.js';
import { VCPU_SECTIONS, VM_SECTIONS } from '../../../lib/cpu/sections.js';
import {
  decodeXsave,
  encodeXsave,
  KVM_XSAVE_SIZE,
  XSAVE_LAYOUT_AMD,
  XSAVE_LAYOUT_INTEL,
  xsaveLayout,
} from '../../../lib/cpu/xsave.js';
import type { RawVcpuState, RawVmState } from '../../../lib/native/binding.js';
import { AMD_PVM, INTEL } from './hosts.js';

/** A second copy of every section's size: a snapshot holds these bytes. Lists: of one entry. */
const SIZES: Record<Exclude<keyof RawVcpuState, 'tsc_khz'> | keyof RawVmState, number> = {
  cpuid2: 40,
  regs: 144,
  sregs2: 320,
  xsave2: 4096,
  xcrs: 392,
  debugregs: 128,
  msrs: 16,
  lapic: 1024,
  vcpu_events: 64,
  mp_state: 4,
  pic_master: 520,
  pic_slave: 520,
  ioapic: 520,
  pit2: 112,
  clock: 48,
};
const SECTIONS = { ...VCPU_SECTIONS, ...VM_SECTIONS };

const IOCTLS: Record<keyof typeof SIZES, string> = {
  cpuid2: 'KVM_GET_CPUID2 KVM_SET_CPUID2',
  regs: 'KVM_GET_REGS KVM_SET_REGS',
  sregs2: 'KVM_GET_SREGS2 KVM_SET_SREGS2',
  xsave2: 'KVM_GET_XSAVE2 KVM_SET_XSAVE',
  xcrs: 'KVM_GET_XCRS KVM_SET_XCRS',
  debugregs: 'KVM_GET_DEBUGREGS KVM_SET_DEBUGREGS',
  msrs: 'KVM_GET_MSRS KVM_SET_MSRS',
  lapic: 'KVM_GET_LAPIC KVM_SET_LAPIC',
  vcpu_events: 'KVM_GET_VCPU_EVENTS KVM_SET_VCPU_EVENTS',
  mp_state: 'KVM_GET_MP_STATE KVM_SET_MP_STATE',
  pic_master: 'KVM_GET_IRQCHIP KVM_SET_IRQCHIP',
  pic_slave: 'KVM_GET_IRQCHIP KVM_SET_IRQCHIP',
  ioapic: 'KVM_GET_IRQCHIP KVM_SET_IRQCHIP',
  pit2: 'KVM_GET_PIT2 KVM_SET_PIT2',
  clock: 'KVM_GET_CLOCK KVM_SET_CLOCK',
};

describe.each(Object.keys(SIZES) as (keyof typeof SIZES)[])('section %s', (name) => {
  const section = SECTIONS[name] as {
    struct: string;
    ioctlGet: string;
    ioctlSet: string;
    decode(raw: Uint8Array): unknown;
    encode(patch: unknown, base?: Uint8Array): Uint8Array;
  };
  const size = SIZES[name];

  test('names its ioctls and struct', () => {
    expect(`${section.ioctlGet} ${section.ioctlSet}`).toBe(IOCTLS[name]);
    expect(section.struct).toMatch(/^kvm_/);
  });

  test('has its size', () => {
    const zero = new Uint8Array(size);
    expect(section.encode(section.decode(zero))).toHaveLength(size);
    for (const length of [size - 1, size + 1].filter((n) => name !== 'xsave2' || n < size)) {
      expect(() => section.decode(new Uint8Array(length))).toThrowError(
        expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
      );
    }
  });

  test('random bytes survive decode and encode', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: size, maxLength: size }), (raw) => {
        if (name === 'xsave2') raw[527]! &= 0x7f;
        if (name === 'msrs') raw.fill(0, 4, 8);
        if (name === 'cpuid2') raw.fill(0, 28, 40);
        expect(section.encode(section.decode(raw), raw)).toEqual(raw);
      }),
      { numRuns: 30 },
    );
  });
});

describe('XSAVE', () => {
  test.each([
    ['Intel', XSAVE_LAYOUT_INTEL, 12288],
    ['AMD', XSAVE_LAYOUT_AMD, 4096],
    ['recorded host', xsaveLayout(AMD_PVM), 4096],
  ])('random bytes survive with the %s layout; unknown ones stay', (_name, layout, size) => {
    const blob = fc.uint8Array({ minLength: size, maxLength: size });
    fc.assert(
      fc.property(blob, blob, (raw, base) => {
        raw[527]! &= 0x7f;
        base[527]! &= 0x7f;
        const value = decodeXsave(raw, layout);
        expect(encodeXsave(value, raw, layout)).toEqual(raw);
        const moved = encodeXsave(value, base, layout);
        expect(decodeXsave(moved, layout)).toEqual(value);
        expect(moved.subarray(464, 512)).toEqual(base.subarray(464, 512));
        expect(moved.subarray(528, 576)).toEqual(base.subarray(528, 576));
      }),
      { numRuns: 10 },
    );
  });

  test('leaf 0xD gives the layouts of both vendors', () => {
    expect([...xsaveLayout(AMD_PVM)]).toEqual([
      [2, 576],
      [5, 832],
      [6, 896],
      [7, 1408],
    ]);
    for (const [bit, offset] of xsaveLayout(INTEL)) {
      expect(XSAVE_LAYOUT_INTEL.get(bit), `component ${bit}`).toBe(offset);
    }
    expect(xsaveLayout(INTEL).has(11)).toBe(false);
  });

  test('registers are where the manual has them', () => {
    const raw = new Uint8Array(4096);
    const view = new DataView(raw.buffer);
    view.setUint16(0, 0x37f, true);
    view.setUint32(24, 0x1f80, true);
    raw[32 + 7 * 16] = 7;
    raw[160 + 15 * 16] = 15;
    raw[576 + 3 * 16] = 33;
    view.setBigUint64(1088 + 8, 0xffn, true);
    raw[1664 + 64] = 17;
    view.setUint32(2688, 0x55555554, true);
    const value = decodeXsave(raw, XSAVE_LAYOUT_INTEL);
    expect(value.legacy).toMatchObject({ fcw: 0x37f, mxcsr: 0x1f80 });
    expect(value.legacy.st[7]![0]).toBe(7);
    expect(value.legacy.xmm[15]![0]).toBe(15);
    expect(value.avx!.ymm_hi128[3]![0]).toBe(33);
    expect(value.opmask!.k[1]).toBe(0xffn);
    expect(value.hi16_zmm!.zmm[1]![0]).toBe(17);
    expect(value.pkru).toEqual({ pkru: 0x55555554 });
    expect(value.tiledata).toBeUndefined();
  });

  test('a patched component becomes live in xstate_bv, unless told otherwise', () => {
    const xmm = Array.from({ length: 16 }, () => new Uint8Array(16));
    const bv = (raw: Uint8Array) => decodeXsave(raw).header.xstate_bv;
    expect(bv(encodeXsave({ avx: { ymm_hi128: xmm } }))).toBe(4n);
    expect(bv(encodeXsave({ legacy: { xmm } }))).toBe(2n);
    expect(bv(encodeXsave({ legacy: { fcw: 0x37f } }))).toBe(1n);
    expect(bv(encodeXsave({ legacy: { fcw: 0x37f }, header: { xstate_bv: 0n } }))).toBe(0n);
    const base = encodeXsave({ header: { xstate_bv: 0x10n } });
    expect(bv(encodeXsave({ legacy: { mxcsr: 0x1f80 } }, base))).toBe(0x12n);
    expect(bv(encodeXsave({}, base))).toBe(0x10n);
  });

  test('refuses lengths, the compacted format, and a component the layout does not place', () => {
    const invalid = expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' });
    expect(() => decodeXsave(new Uint8Array(KVM_XSAVE_SIZE - 1))).toThrowError(invalid);
    expect(() => decodeXsave(new Uint8Array(65537))).toThrowError(invalid);
    const compacted = new Uint8Array(4096);
    compacted[527] = 0x80;
    expect(() => decodeXsave(compacted)).toThrowError(invalid);
    expect(() => encodeXsave({ pkru: { pkru: 1 } })).toThrowError(invalid);
  });

  test('a layout from a hostile CPUID places nothing outside', () => {
    const hostile = xsaveLayout(
      [0, 100, 575, 4000, 0xffffffff].map((ebx, i) => ({
        function: 0xd,
        index: [5, 6, 7, 9, 17][i]!,
        flags: 1,
        eax: 64,
        ebx,
        ecx: 0,
        edx: 0,
      })),
    );
    const value = decodeXsave(new Uint8Array(4096), hostile);
    expect(Object.keys(value).sort()).toEqual(['avx', 'header', 'legacy', 'pkru']);
  });
});

describe('MSRs', () => {
  test('every MSR that this KVM lists has a name, and a name has one index', () => {
    // KVM_GET_MSR_INDEX_LIST of KVM on PVM.
    const listed =
      '174 175 176 c0000081 c0000083 c0000102 c0000084 c0000082 10 277 c0010117 1d9 1db 1dc 1dd 1de 12 11 4b564d01 4b564d00 4b564d02 4b564d03 4b564d04 4b564d06 4b564d07 3b 6e0 10a 345 1a0 17a 17b 34 ce 140 c001011f 1fc 8b c0010015 4b564d05'
        .split(' ')
        .map((index) => Number.parseInt(index, 16));
    for (const index of listed) {
      expect(msrName(index)).not.toMatch(/^MSR_/);
      expect(msrIndex(msrName(index))).toBe(index);
    }
    const indices = Object.values(MSR);
    expect(new Set(indices).size).toBe(indices.length);
  });

  test.each([
    ['IA32_TSC', 0x10],
    ['IA32_MTRR_PHYSMASK7', 0x20f],
    ['IA32_MC3_STATUS', 0x40d],
    ['IA32_PERFEVTSEL0', 0x186],
    ['LSTAR', 0xc0000082],
    ['KERNEL_GS_BASE', 0xc0000102],
    ['KVM_SYSTEM_TIME_NEW', 0x4b564d01],
    ['IA32_XSS', 0xda0],
    ['HV_STIMER3_COUNT', 0x400000b7],
    ['F15H_PERF_CTR5', 0xc001020b],
    ['X2APIC_380', 0x838],
    ['MSR_deadbeef', 0xdeadbeef],
  ])('%s is %i', (name, index) => {
    expect(msrName(index)).toBe(name);
    expect(msrIndex(name)).toBe(index);
  });

  test.each(['', 'IA32_NOTHING', 'MSR_12', 'toString', 'X2APIC_1'])('refuses %j', (name) => {
    expect(() => msrIndex(name)).toThrowError(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
    );
  });

  test('lists decode in order and have a limit', () => {
    const entries = [
      { index: 0x10, data: 1n },
      { index: 0xc0000080, data: 2n ** 64n - 1n },
    ];
    expect(decodeMsrs(encodeMsrs(entries))).toEqual(entries);
    expect(decodeMsrs(new Uint8Array(0))).toEqual([]);
    expect(() => decodeMsrs(new Uint8Array(4097 * 16))).toThrowError(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
    );
    expect(() => encodeMsrs([{ index: -1, data: 0n }])).toThrowError(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
    );
  });
});
