import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { KVM_CPUID_ENTRY2 } from '../../../lib/cpu/cpuid-entries.js';
import { KVM_MP_STATE, KVM_VCPU_EVENTS } from '../../../lib/cpu/events.js';
import * as irqchip from '../../../lib/cpu/irqchip.js';
import { KVM_LAPIC_STATE, lapicVectors } from '../../../lib/cpu/lapic.js';
import { KVM_MSR_ENTRY } from '../../../lib/cpu/msrs.js';
import * as registers from '../../../lib/cpu/registers.js';
import { bits64, type Leaf, type Struct, struct, u8 } from '../../../lib/cpu/struct.js';

const invalid = (message: RegExp | string) =>
  expect.objectContaining({
    code: 'ERR_INVALID_ARGUMENT',
    message: expect.stringMatching(message),
  });

/**
 * Sizes and some offsets as `sizeof` and `offsetof` give them in C: `field: [offset, size]`. Saved
 * snapshots have these layouts; a change here is a change of the file format.
 */
const LAYOUTS: Record<string, [Struct<unknown>, number, Record<string, [number, number]>]> = {
  kvm_regs: [
    registers.KVM_REGS,
    144,
    { rax: [0, 8], rsp: [48, 8], rbp: [56, 8], r8: [64, 8], rip: [128, 8], rflags: [136, 8] },
  ],
  kvm_segment: [registers.KVM_SEGMENT, 24, { base: [0, 8], selector: [12, 2], unusable: [22, 1] }],
  kvm_dtable: [registers.KVM_DTABLE, 16, { base: [0, 8], limit: [8, 2] }],
  kvm_sregs2: [
    registers.KVM_SREGS2,
    320,
    {
      'ss.base': [120, 8],
      'ss.selector': [132, 2],
      'tr.type': [158, 1],
      'ldt.avl': [189, 1],
      'ldt.unusable': [190, 1],
      'gdt.base': [192, 8],
      'idt.limit': [216, 2],
      cr0: [224, 8],
      cr3: [240, 8],
      cr8: [256, 8],
      efer: [264, 8],
      apic_base: [272, 8],
      flags: [280, 8],
      'pdptrs[3]': [312, 8],
    },
  ],
  kvm_debugregs: [
    registers.KVM_DEBUGREGS,
    128,
    { 'db[3]': [24, 8], dr6: [32, 8], dr7: [40, 8], flags: [48, 8] },
  ],
  kvm_xcrs: [
    registers.KVM_XCRS,
    392,
    {
      nr_xcrs: [0, 4],
      flags: [4, 4],
      'xcrs[0].value': [16, 8],
      'xcrs[15].xcr': [248, 4],
      'xcrs[15].value': [256, 8],
    },
  ],
  kvm_msr_entry: [KVM_MSR_ENTRY, 16, { index: [0, 4], data: [8, 8] }],
  kvm_cpuid_entry2: [KVM_CPUID_ENTRY2, 40, { function: [0, 4], flags: [8, 4], edx: [24, 4] }],
  kvm_lapic_state: [
    KVM_LAPIC_STATE,
    1024,
    {
      id: [0x20, 4],
      tpr: [0x80, 4],
      'isr[0]': [0x100, 4],
      'isr[7]': [0x170, 4],
      'tmr[1]': [0x190, 4],
      'irr[7]': [0x270, 4],
      icr2: [0x310, 4],
      lvt_timer: [0x320, 4],
      timer_divide: [0x3e0, 4],
    },
  ],
  kvm_mp_state: [KVM_MP_STATE, 4, { mp_state: [0, 4] }],
  kvm_vcpu_events: [
    KVM_VCPU_EVENTS,
    64,
    {
      'exception.error_code': [4, 4],
      'interrupt.shadow': [11, 1],
      'nmi.masked': [14, 1],
      sipi_vector: [16, 4],
      flags: [20, 4],
      'smi.latched_init': [27, 1],
      'triple_fault.pending': [28, 1],
      exception_has_payload: [55, 1],
      exception_payload: [56, 8],
    },
  ],
  kvm_pic_state: [irqchip.KVM_PIC_STATE, 16, { imr: [2, 1], elcr_mask: [15, 1] }],
  kvm_ioapic_state: [irqchip.KVM_IOAPIC_STATE, 216, { irr: [16, 4], 'redirtbl[0]': [24, 8] }],
  'kvm_irqchip (PIC)': [
    irqchip.KVM_IRQCHIP_PIC,
    520,
    { chip_id: [0, 4], 'pic.imr': [10, 1], 'pic.elcr_mask': [23, 1] },
  ],
  'kvm_irqchip (IOAPIC)': [
    irqchip.KVM_IRQCHIP_IOAPIC,
    520,
    { 'ioapic.irr': [24, 4], 'ioapic.redirtbl[23]': [216, 8] },
  ],
  kvm_pit_state2: [
    irqchip.KVM_PIT_STATE2,
    112,
    {
      'channels[2].count': [48, 4],
      'channels[2].gate': [63, 1],
      'channels[2].count_load_time': [64, 8],
      flags: [72, 4],
    },
  ],
  kvm_clock_data: [
    irqchip.KVM_CLOCK_DATA,
    48,
    { clock: [0, 8], flags: [8, 4], realtime: [16, 8], host_tsc: [24, 8] },
  ],
};

describe.each(Object.entries(LAYOUTS))('%s', (name, [codec, size, offsets]) => {
  const leaves = codec.leaves();
  const leafOf = (path: string): Leaf | undefined => leaves.find((leaf) => leaf.path === path);

  test('has the size and offsets of the C struct', () => {
    expect(codec.name).toBe(name.split(' ')[0]);
    expect(codec.size).toBe(size);
    for (const [path, [offset, bytes]] of Object.entries(offsets)) {
      expect(leafOf(path), path).toEqual({ path, offset, size: bytes });
    }
  });

  test('has fields that lie inside and do not overlap', () => {
    const used = new Uint8Array(size);
    for (const { offset, size: bytes } of leaves) {
      for (let i = offset; i < offset + bytes; i++) used[i]!++;
    }
    expect(Math.max(...used)).toBe(1);
    expect(used).toHaveLength(size);
  });

  test('any bytes: what was decoded is encoded, and the rest stays', () => {
    const blob = fc.uint8Array({ minLength: size, maxLength: size });
    fc.assert(
      fc.property(blob, blob, (raw, base) => {
        const value = codec.decode(raw);
        expect(codec.encode(value as object, raw)).toEqual(raw);
        const moved = codec.encode(value as object, base);
        expect(codec.decode(moved)).toEqual(value);
        const named = new Uint8Array(size);
        for (const leaf of leaves) named.fill(1, leaf.offset, leaf.offset + leaf.size);
        // Bit fields keep unnamed bits of a named word, so only unnamed bytes are compared here.
        moved.forEach((byte, i) => {
          if (!named[i]) expect(byte, `byte ${i}`).toBe(base[i]);
        });
      }),
      { numRuns: 30 },
    );
  });

  test('refuses any other length', () => {
    for (const length of [0, size - 1, size + 1]) {
      const raw = new Uint8Array(length);
      expect(() => codec.decode(raw)).toThrowError(invalid(`${size} bytes`));
      expect(() => codec.encode({}, raw)).toThrowError(invalid(`${size} bytes`));
    }
  });
});

test('a patch changes one field and neither base nor the other bytes', () => {
  const base = Uint8Array.from({ length: 144 }, (_, i) => i);
  const before = base.slice();
  const out = registers.encodeRegs({ rip: 0x1122334455667788n }, base);
  expect(base).toEqual(before);
  expect([...out.subarray(128, 136)]).toEqual([0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11]);
  expect(out.subarray(0, 128)).toEqual(base.subarray(0, 128));
  expect(out.subarray(136)).toEqual(base.subarray(136));
});

test('a patch reaches into nested structs', () => {
  const base = registers.encodeSregs({ cs: { selector: 8, base: 5n }, cr0: 1n });
  const out = registers.decodeSregs(registers.encodeSregs({ cs: { selector: 16 } }, base));
  expect(out.cs).toMatchObject({ selector: 16, base: 5n });
  expect(out.cr0).toBe(1n);
});

test('works on a view into a larger buffer', () => {
  const buffer = new Uint8Array(200);
  const view = buffer.subarray(7, 151);
  view[128] = 0x42;
  expect(registers.decodeRegs(view).rip).toBe(0x42n);
  const value = registers.decodeRegs(view);
  buffer.fill(0xff);
  expect(value.rip).toBe(0x42n);
});

test.each([
  [{ rip: 5 }, 'kvm_regs.rip must be a bigint'],
  [{ rip: -1n }, 'kvm_regs.rip must be a bigint'],
  [{ rip: 2n ** 64n }, 'kvm_regs.rip must be a bigint'],
  [{ eip: 1n }, 'kvm_regs has no field eip'],
  [null, 'kvm_regs must be an object'],
  [[], 'kvm_regs must be an object'],
])('registers refuse %o', (patch, message) => {
  expect(() => registers.encodeRegs(patch as object)).toThrowError(invalid(message));
});

test.each([
  [{ cs: { dpl: 256 } }, 'kvm_sregs2.cs.dpl must be an integer from 0 to 255'],
  [{ cs: { dpl: -1 } }, 'kvm_sregs2.cs.dpl'],
  [{ cs: { dpl: 1.5 } }, 'kvm_sregs2.cs.dpl'],
  [{ cs: { padding: 1 } }, 'kvm_sregs2.cs has no field padding'],
  [{ pdptrs: [1n, 2n] }, 'kvm_sregs2.pdptrs must be an array of 4'],
  [{ pdptrs: [1n, 2n, 3n, 4] }, /kvm_sregs2\.pdptrs\[3\] must be a bigint/],
])('segment registers refuse %o', (patch, message) => {
  expect(() => registers.encodeSregs(patch as object)).toThrowError(invalid(message));
});

test('undefined in a patch leaves the field', () => {
  const base = registers.encodeRegs({ rax: 7n });
  expect(registers.encodeRegs({ rax: undefined }, base)).toEqual(base);
});

test('bit fields keep the bits without a name', () => {
  const word = struct('word', { bits: bits64({ low: [0, 4], flag: [40, 1] }) });
  const ones = new Uint8Array(8).fill(0xff);
  expect([...word.encode({ bits: { low: 0, flag: 0 } }, ones)]).toEqual([
    0xf0, 0xff, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff,
  ]);
  expect(() => word.encode({ bits: { low: 16 } })).toThrowError(invalid('from 0 to 15'));
  expect(() => word.encode({ bits: { flag: 2 } })).toThrowError(invalid('from 0 to 1'));
});

test('a table larger than its size is an error of the programmer', () => {
  expect(() => struct('small', { a: u8, b: u8 }, 1)).toThrowError(invalid('beyond its size'));
});

test('an IOAPIC redirection entry by the datasheet', () => {
  const raw = new Uint8Array(520);
  // Vector 0x31, lowest priority, logical, active low, level, masked, destination 0xa5.
  new DataView(raw.buffer).setBigUint64(8 + 24 + 4 * 8, 0xa5000000_0001a931n, true);
  expect(irqchip.decodeIoapic(raw).ioapic.redirtbl[4]).toEqual({
    vector: 0x31,
    delivery_mode: 1,
    dest_mode: 1,
    delivery_status: 0,
    polarity: 1,
    remote_irr: 0,
    trig_mode: 1,
    mask: 1,
    dest_id: 0xa5,
  });
});

test('vectors of a LAPIC bitmap', () => {
  expect(lapicVectors([0, 0x80000001, 0, 0, 0, 0, 0, 0x80000000])).toEqual([32, 63, 255]);
  expect(lapicVectors(new Array(8).fill(0))).toEqual([]);
});
