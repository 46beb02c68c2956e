import { describe, expect, it } from 'vitest';
import { BARE_LAYOUT, type BareOptions, planBare } from '../../../lib/boot/index.js';
import { GiB, KiB, MiB } from '../../../lib/units.js';
import { descriptor, elf32, elf64, expectSoundPlan, readPlan, translate } from './support.js';

const image = Uint8Array.of(0xf4, 0xeb, 0xfd);
const base: BareOptions = { image, mode: 'long', ring: 3, memory: MiB(16) };
const plan = (options: Partial<BareOptions> = {}) => planBare({ ...base, ...options });
const badArgument = expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' });
const badImage = expect.objectContaining({ code: 'ERR_KERNEL_IMAGE' });

describe('long mode', () => {
  it('starts a flat image at its first byte', () => {
    const made = plan();
    expectSoundPlan(made, base.memory);
    expect([...readPlan(made, 0x1000, 3)]).toEqual([...image]);
    expect(made.entry.regs).toEqual({
      rip: 0x1000n,
      rsp: 0x80000n,
      rdi: BigInt(MiB(16)),
      rflags: 0x3002n,
    });
  });

  it('maps 4 GiB, and all RAM of a larger machine, open to ring 3', () => {
    const small = plan({ ring: 0 });
    const open = { user: true, writable: true };
    for (const gpa of [0n, 0x1234n, 0xfee00010n, 0xffffffffn]) {
      expect(translate(small, small.entry.sregs.cr3!, gpa)).toEqual({ gpa, ...open });
    }
    const large = plan({ memory: GiB(6.5) });
    expectSoundPlan(large, GiB(6.5));
    const last = BigInt(GiB(7.5)) - 1n;
    expect(translate(large, large.entry.sregs.cr3!, last)).toEqual({ gpa: last, ...open });
    expect(translate(large, large.entry.sregs.cr3!, BigInt(GiB(8)))).toBeUndefined();
  });

  it('leaves no way out to a guest that starts in ring 3: no interrupt controllers, no syscall', () => {
    const { ring0, ring3 } = { ring0: plan({ ring: 0 }), ring3: plan({ ring: 3 }) };
    for (const gpa of [0xfec00000n, 0xfee00010n, 0xfeffffffn]) {
      expect(translate(ring3, ring3.entry.sregs.cr3!, gpa)).toMatchObject({ gpa, user: false });
    }
    for (const gpa of [0xfebfffffn, 0xff000000n]) {
      expect(translate(ring3, ring3.entry.sregs.cr3!, gpa)).toMatchObject({ gpa, user: true });
    }
    expect(ring0.entry.sregs.efer! & 1n).toBe(1n);
    expect(ring3.entry.sregs.efer! & 1n).toBe(0n);
  });

  it('has room for the page tables of 119 GiB of RAM and says so beyond', () => {
    expectSoundPlan(plan({ memory: GiB(119) }), GiB(119));
    expect(() => plan({ memory: GiB(119) + 4096 })).toThrow(/page tables up to 120 GiB/);
  });

  it.each([0, 3] as const)('ring %i has segments that agree with the GDT', (ring) => {
    const made = plan({ ring });
    const { sregs } = made.entry;
    expect(sregs.cs).toMatchObject({ l: 1, db: 0, dpl: ring, type: 11 });
    expect(sregs.cs!.selector & 3).toBe(ring);
    expect(sregs.ss).toMatchObject({ dpl: ring, type: 3 });
    for (const segment of [sregs.cs!, sregs.ds!, sregs.ss!, sregs.tr!]) {
      const { base, limit, type, s, dpl, present, l, db, g } = segment;
      const said = { base, limit, type, s, dpl, present, l, db, g };
      expect(descriptor(made, sregs.gdt!.base, segment.selector)).toEqual(said);
    }
    const gdtEnd = sregs.gdt!.base + BigInt(sregs.gdt!.limit) + 1n;
    expect(gdtEnd).toBeGreaterThanOrEqual(sregs.gdt!.base + BigInt(sregs.tr!.selector) + 16n);
  });
});

/** Whether ring 3 with IOPL 0 may use a port, as the CPU finds out (Intel SDM volume 1, 19.5.2). */
function mayUse(made: ReturnType<typeof planBare>, port: number): boolean {
  const { base: tss, limit } = made.entry.sregs.tr!;
  const map = readPlan(made, tss + 102n, 2).readUInt16LE();
  const at = map + (port >> 3);
  if (at + 1 > limit) return false;
  return !(readPlan(made, tss + BigInt(at), 2).readUInt16LE() & (1 << (port & 7)));
}

describe('TSS', () => {
  it('lets ring 3 use every port by default', () => {
    const made = plan();
    for (const port of [0, 0x3f8, 0xe9, 0x8000, 0xfffe, 0xffff]) {
      expect(mayUse(made, port), `port ${port}`).toBe(true);
    }
    // IOPL 3 says the same to those that do not look at the bitmap.
    expect(made.entry.regs.rflags).toBe(0x3002n);
    expect(plan({ ring: 0 }).entry.regs.rflags).toBe(2n);
    expect(plan({ tssPorts: 'none' }).entry.regs.rflags).toBe(2n);
  });

  it('lets ring 3 use just the ports it is given', () => {
    const made = plan({
      tssPorts: [
        { base: 0xe9, count: 1 },
        { base: 0x3f8, count: 8 },
      ],
    });
    const allowed = Array.from({ length: 0x10000 }, (_, port) => port).filter(
      (port) => port < 0x1000 && mayUse(made, port),
    );
    expect(allowed).toEqual([0xe9, 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff]);
    expect(mayUse(plan({ tssPorts: 'none' }), 0xe9)).toBe(false);
  });

  it('names the stack of ring 0', () => {
    const long = plan();
    const tss = long.entry.sregs.tr!.base;
    expect(readPlan(long, tss + 4n, 8).readBigUInt64LE()).toBe(BARE_LAYOUT.ring0StackTop);
    const protectedMode = plan({ mode: 'protected' });
    expect(readPlan(protectedMode, tss + 4n, 4).readUInt32LE()).toBe(
      Number(BARE_LAYOUT.ring0StackTop),
    );
    expect(readPlan(protectedMode, tss + 8n, 2).readUInt16LE()).toBe(0x10);
  });

  it('refuses ports that there are not', () => {
    expect(() => plan({ tssPorts: [{ base: 0xffff, count: 2 }] })).toThrow(badArgument);
    expect(() => plan({ tssPorts: [{ base: -1, count: 2 }] })).toThrow(badArgument);
  });
});

describe('protected mode', () => {
  it.each([0, 3] as const)('ring %i has flat 32-bit segments and no paging', (ring) => {
    const made = plan({ mode: 'protected', ring });
    expectSoundPlan(made, base.memory);
    const { sregs } = made.entry;
    expect(sregs.cr0! & 0x80000001n).toBe(1n);
    expect(sregs.efer).toBe(0n);
    expect(sregs.cs).toMatchObject({ base: 0n, limit: 0xffffffff, l: 0, db: 1, dpl: ring });
    const { base: tssBase, limit, type } = descriptor(made, sregs.gdt!.base, 0x28);
    expect({ tssBase: tssBase & 0xffffffffn, limit, type }).toEqual({
      tssBase: sregs.tr!.base,
      limit: sregs.tr!.limit,
      type: 11,
    });
  });
});

describe('real mode', () => {
  const real = (options: Partial<BareOptions> = {}) => plan({ mode: 'real', ring: 0, ...options });

  it('needs 64 KiB of RAM and writes the image only', () => {
    const made = real({ memory: KiB(64) });
    expect(made.writes.length).toBe(1);
    const { regs, sregs } = made.entry;
    expect(sregs.cs).toMatchObject({ base: 0n, selector: 0, limit: 0xffff });
    expect(regs.rip).toBe(0x1000n);
    expect(sregs.cr0).toBe(0x10n);
    expect(sregs.idt).toEqual({ base: 0n, limit: 0x3ff });
  });

  it('splits addresses into segment and offset', () => {
    const { regs, sregs } = real({ loadAddress: 0x27c00n, stack: 0x30000n }).entry;
    expect([sregs.cs!.selector, sregs.cs!.base, regs.rip]).toEqual([0x2000, 0x20000n, 0x7c00n]);
    expect(sregs.ds!.selector).toBe(0x2000);
    // A push goes to SS:(SP - 2) modulo 64 KiB, which is just below the stack given.
    expect(sregs.ss!.base + ((regs.rsp! - 2n) & 0xffffn)).toBe(0x30000n - 2n);
  });

  it('has no ring 3, takes no ELF file and cannot start above 1 MiB', () => {
    expect(() => real({ ring: 3 })).toThrow(/no privilege rings/);
    expect(() => real({ image: elf64(0x1000, [{ gpa: 0x1000, data: image }]) })).toThrow(/flat/);
    expect(() => real({ loadAddress: 0x100000n })).toThrow(/real mode can address/);
  });
});

describe('flat image', () => {
  it('is refused over tables, over the default stack and outside RAM', () => {
    for (const loadAddress of [0x7ffffn, 0x80000n, 0x8bfffn, BigInt(MiB(16)) - 2n, 1n << 63n]) {
      expect(() => plan({ loadAddress }), `${loadAddress}`).toThrow(badArgument);
    }
    expect(() => plan({ loadAddress: 0x7effdn })).not.toThrow();
    expect(() => plan({ loadAddress: 0x8c000n })).not.toThrow();
    expect(() => plan({ loadAddress: 0x7f000n, stack: 0x7f000n })).not.toThrow();
  });

  it('is refused empty', () => {
    expect(() => plan({ image: new Uint8Array(0) })).toThrow(badImage);
  });

  it('that starts like an ELF file loads as it is when told so', () => {
    const elf = elf64(0x200000, [{ gpa: 0x200000, data: image }]);
    const made = plan({ image: elf, format: 'flat' });
    expect(readPlan(made, 0x1000, 4).toString()).toBe('\x7fELF');
  });
});

describe('ELF image', () => {
  const segments = [
    { gpa: 0x200000, data: image, memorySize: 0x1000 },
    { gpa: 0x400000, data: Uint8Array.of(1, 2, 3) },
  ];

  it('is loaded segment by segment and entered where it says', () => {
    const made = plan({ image: elf64(0x200001, segments) });
    expectSoundPlan(made, base.memory);
    expect([...readPlan(made, 0x200000, 3)]).toEqual([...image]);
    expect([...readPlan(made, 0x400000, 3)]).toEqual([1, 2, 3]);
    expect(made.entry.regs.rip).toBe(0x200001n);
  });

  it('is refused where bss or content does not fit, overlaps, or has no entry', () => {
    const bss = [{ gpa: MiB(16) - 0x1000, data: image, memorySize: 0x1001 }];
    expect(() => plan({ image: elf64(bss[0]!.gpa, bss) })).toThrow(badImage);
    const over = [...segments, { gpa: 0x200fff, data: image }];
    expect(() => plan({ image: elf64(0x200000, over) })).toThrow(/overlaps/);
    const tables = [{ gpa: 0x85000, data: image }];
    expect(() => plan({ image: elf64(0x85000, tables) })).toThrow(/ring 0 stack/);
    expect(() => plan({ image: elf64(0x300000, segments) })).toThrow(/not in what the image loads/);
  });

  it('is refused when position-independent, foreign or 32-bit in long mode', () => {
    const changed = (offset: number, value: number) => {
      const bytes = elf64(0x200000, segments);
      bytes[offset] = value;
      return bytes;
    };
    expect(() => plan({ image: changed(16, 3) })).toThrow(/no-pie/);
    expect(() => plan({ image: changed(18, 183) })).toThrow(/machine 183/);
    expect(() => plan({ image: changed(5, 2) })).toThrow(/big-endian/);
    expect(() => plan({ image: changed(4, 3) })).toThrow(/class/);
  });

  it('of 32 bits runs in protected mode only', () => {
    const elf = elf32(0x200001, 0x200000, image);
    const made = plan({ image: elf, mode: 'protected' });
    expect([...readPlan(made, 0x200000, 3)]).toEqual([...image]);
    expect(made.entry.regs.rip).toBe(0x200001n);
    expect(() => plan({ image: elf })).toThrow(/32-bit ELF/);
  });

  it('says itself where it goes', () => {
    const elf = elf64(0x200000, segments);
    expect(() => plan({ image: elf, loadAddress: 0x300000n })).toThrow(/flat images/);
    expect(() => plan({ image, format: 'elf' })).toThrow(/no ELF magic/);
  });
});

describe('options', () => {
  it('are refused by name', () => {
    expect(() => plan({ memory: 0 })).toThrow(/memory/);
    expect(() => plan({ memory: 2 ** 53 })).toThrow(/memory/);
    expect(() => plan({ stack: BigInt(MiB(16)) + 1n })).toThrow(/stack/);
    expect(() => plan({ stack: 0n })).toThrow(/stack/);
    expect(() => plan({ entry: BigInt(GiB(3)) })).toThrow(/entry/);
    expect(() => plan({ entry: 5 as unknown as bigint })).toThrow(/entry must be/);
    expect(() => plan({ mode: 'smm' as 'long' })).toThrow(/mode/);
    expect(() => plan({ ring: 1 as 0 })).toThrow(/ring/);
    expect(() => plan({ format: 'coff' as 'elf' })).toThrow(/format/);
  });
});
