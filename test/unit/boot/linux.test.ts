import { describe, expect, it } from 'vitest';
import { LINUX_LAYOUT, type LinuxOptions, planLinux } from '../../../lib/boot/index.js';
import { GiB, MiB } from '../../../lib/units.js';
import {
  bzImage,
  descriptor,
  elf64,
  encodeNotes,
  expectSoundPlan,
  pvhNote,
  readPlan,
  translate,
} from './support.js';

const base: LinuxOptions = {
  kernel: bzImage(),
  cmdline: 'console=ttyS0',
  memory: MiB(256),
  vcpus: 1,
  irqchip: true,
};
const plan = (options: Partial<LinuxOptions> = {}) => planLinux({ ...base, ...options });
const code = Buffer.alloc(0x3000, 0x90);
const vmlinux = (...notes: number[]) =>
  elf64(0x1000000, [
    { gpa: 0x1000000, data: code, memorySize: 0x5000 },
    ...notes.map((entry) => pvhNote(entry)),
  ]);

interface Range {
  start: number;
  end: number;
  type: number;
}
const e820 = (zeroPage: Buffer): Range[] =>
  Array.from({ length: zeroPage[0x1e8]! }, (_, i) => {
    const at = 0x2d0 + i * 20;
    const start = Number(zeroPage.readBigUInt64LE(at));
    const size = Number(zeroPage.readBigUInt64LE(at + 8));
    return { start, end: start + size, type: zeroPage.readUInt32LE(at + 16) };
  });

describe('bzImage', () => {
  it('is put at its preferred address without its setup code', () => {
    const made = plan();
    expectSoundPlan(made, base.memory);
    expect(readPlan(made, 0x1000000, 0x4000).every((byte) => byte === 0x90)).toBe(true);
    expect(made.entry.regs.rip).toBe(0x1000200n);
  });

  it('finds its boot parameters in the zero page', () => {
    const made = plan({ initrd: Buffer.alloc(5000, 7) });
    const page = readPlan(made, made.entry.regs.rsi!, 4096);
    expect(page.subarray(0x202, 0x206).toString()).toBe('HdrS');
    expect(page.readUInt16LE(0x206)).toBe(0x20f);
    expect(page[0x210]).toBe(0xff);
    expect(page.readUInt32LE(0x230)).toBe(0x200000);
    const text = readPlan(made, page.readUInt32LE(0x228), 14).toString();
    expect(text).toBe('console=ttyS0\0');
    expect(page.readUInt32LE(0x21c)).toBe(5000);
    expect(readPlan(made, page.readUInt32LE(0x218), 5000).every((byte) => byte === 7)).toBe(true);
    const rsdp = readPlan(made, page.readBigUInt64LE(0x70), 8).toString();
    expect(rsdp).toBe('RSD PTR ');
  });

  it('starts in long mode with the first 4 GiB mapped to themselves', () => {
    const made = plan();
    const { sregs, regs } = made.entry;
    expect(regs.rflags).toBe(2n);
    expect(sregs.cr0! & 0x80000001n).toBe(0x80000001n);
    expect(sregs.cr4! & 0x20n).toBe(0x20n);
    expect(sregs.efer! & 0x500n).toBe(0x500n);
    for (const address of [0n, 0x7000n, 0x1000200n, 0xfee00000n, 0xffffffffn]) {
      expect(translate(made, sregs.cr3!, address)?.gpa).toBe(address);
    }
    expect(translate(made, sregs.cr3!, 0x100000000n)).toBeUndefined();
  });

  it('has segment registers that agree with its GDT', () => {
    const made = plan();
    const { sregs } = made.entry;
    expect(sregs.cs!.selector).toBe(0x10);
    expect(sregs.ds!.selector).toBe(0x18);
    for (const segment of [sregs.cs!, sregs.ds!, sregs.es!, sregs.ss!]) {
      const { base, limit, type, s, dpl, present, l, db, g } = segment;
      expect(descriptor(made, sregs.gdt!.base, segment.selector)).toEqual({
        base,
        limit,
        type,
        s,
        dpl,
        present,
        l,
        db,
        g,
      });
    }
  });

  it.each([
    ['too old a protocol', 0x206, 0x20b],
    ['no 64-bit entry', 0x236, 0x7e],
    ['not loaded high', 0x211, 0],
  ])('is refused with %s', (_, offset, value) => {
    const kernel = bzImage();
    kernel.writeUInt16LE(value, offset);
    expect(() => plan({ kernel })).toThrow(expect.objectContaining({ code: 'ERR_KERNEL_IMAGE' }));
  });

  it('is refused when it is cut off', () => {
    const kernel = bzImage().subarray(0, 0x3000);
    expect(() => plan({ kernel })).toThrow(/cut off/);
  });

  it('may end inside the last paragraph of 16 bytes, as memtest86+ does, but not before it', () => {
    const whole = bzImage();
    for (const missing of [1, 8, 15]) {
      const made = plan({ kernel: whole.subarray(0, whole.length - missing) });
      expectSoundPlan(made, base.memory);
      const end = readPlan(made, 0x1000000 + 0x4000 - 16, 16);
      expect([...end]).toEqual([...Array(16 - missing).fill(0x90), ...Array(missing).fill(0)]);
    }
    expect(() => plan({ kernel: whole.subarray(0, whole.length - 16) })).toThrow(/cut off/);
  });

  it('is refused when its init_size does not fit into RAM', () => {
    const kernel = bzImage();
    kernel.writeUInt32LE(MiB(241), 0x260);
    expect(() => plan({ kernel })).toThrow(
      expect.objectContaining({
        code: 'ERR_KERNEL_IMAGE',
        message: expect.stringContaining('more memory'),
      }),
    );
    kernel.writeUInt32LE(MiB(240), 0x260);
    expectSoundPlan(plan({ kernel }), base.memory);
  });
});

describe('memory map', () => {
  it('has RAM, EBDA, hole and interrupt controllers, sorted', () => {
    const made = plan({ memory: MiB(256) });
    expect(e820(readPlan(made, LINUX_LAYOUT.zeroPage, 4096))).toEqual([
      { start: 0, end: 0x9fc00, type: 1 },
      { start: 0x9fc00, end: 0xa0000, type: 2 },
      { start: 0xa0000, end: 0x100000, type: 2 },
      { start: 0x100000, end: MiB(256), type: 1 },
      { start: 0xfec00000, end: 0xfec01000, type: 2 },
      { start: 0xfee00000, end: 0xfee01000, type: 2 },
    ]);
  });

  it('goes on at 4 GiB with what is above the hole', () => {
    const made = plan({ memory: GiB(3.5) });
    const map = e820(readPlan(made, LINUX_LAYOUT.zeroPage, 4096));
    const ram = map.filter(({ type }) => type === 1);
    expect(ram.at(-2)).toEqual({ start: 0x100000, end: GiB(3), type: 1 });
    expect(ram.at(-1)).toEqual({ start: GiB(4), end: GiB(4.5), type: 1 });
  });
});

describe('firmware', () => {
  it('is at the reset vector: a jump to code that asks i8042 and chipset for a reset', () => {
    const made = plan({ kernel: vmlinux(0x1000100) });
    const jump = readPlan(made, 0xffff0, 16);
    expect(jump[0]).toBe(0xea);
    expect(jump.readUInt16LE(3)).toBe(0xf000);
    const code = readPlan(made, 0xf0000 + jump.readUInt16LE(1), 64).toString('hex');
    // mov al, 0xfe; out 0x64, al; mov dx, 0xcf9; mov al, 6; out dx, al
    expect(code).toContain('b0fee664baf90cb006ee');
  });

  it('leaves a reset flag that says neither cold nor warm boot, and a mark', () => {
    const made = plan();
    expect(readPlan(made, 0x472, 2).readUInt16LE()).toBe(0xffff);
    expect(readPlan(made, 0x4f0, 8).toString()).toBe('KVMSNAP1');
  });

  it('keeps its place when ACPI tables want it', () => {
    const devices = Array.from({ length: 3800 }, (_, uid) => ({
      name: `V${uid.toString(16).toUpperCase().padStart(3, '0')}`,
      hid: 'LNRO0005',
      uid,
      memory: [{ base: 0xd0000000 + uid * 4096, length: 4096 }],
    }));
    expect(() => plan({ devices })).toThrow(/ACPI tables do not fit below the reset vector/);
    expectSoundPlan(plan({ devices: devices.slice(0, 1000) }), base.memory);
  });
});

describe('the state that firmware leaves', () => {
  const msrs = (options: Partial<LinuxOptions> = {}) =>
    new Map(plan(options).firmware!.msrs.map(({ index, data }) => [index, data]));

  it('has memory write-back, video memory and the 32-bit hole uncacheable, MTRRs enabled last', () => {
    const all = msrs({ physicalAddressBits: 48 });
    expect(all.get(0x250)).toBe(0x0606060606060606n);
    expect(all.get(0x258)).toBe(0x0606060606060606n);
    expect(all.get(0x259)).toBe(0n);
    for (let fixed = 0x268; fixed <= 0x26f; fixed++) {
      expect(all.get(fixed)).toBe(0x0606060606060606n);
    }
    // Base 3 GiB, type 0; 1 GiB of 48 address bits, valid.
    expect(all.get(0x200)).toBe(0xc0000000n);
    expect(all.get(0x201)).toBe(0xffffc0000800n);
    expect([...all].at(-1)).toEqual([0x2ff, 0xc06n]);
  });

  it('has no address bit beyond those of the CPU', () => {
    expect(msrs().get(0x201)).toBe(0xfc0000800n);
    expect(msrs({ physicalAddressBits: 52 }).get(0x201)).toBe(0xfffffc0000800n);
  });

  it('has the boot vCPU take the interrupt of PICs that raise none, by every entry', () => {
    for (const kernel of [bzImage(), vmlinux(), vmlinux(0x1000100)]) {
      const { lapic, pics } = plan({ kernel }).firmware!;
      expect(lapic).toEqual({ svr: 0x1ff, lvt_lint0: 0x700, lvt_lint1: 0x400 });
      expect(pics.map(({ chip_id, pic }) => [chip_id, pic!.irq_base, pic!.imr])).toEqual([
        [1, 0x70, 0xff],
        [0, 0x08, 0xff],
      ]);
    }
  });
});

describe('initrd', () => {
  const initrdAt = (options: Partial<LinuxOptions>) => {
    const page = readPlan(plan(options), LINUX_LAYOUT.zeroPage, 4096);
    return page.readUInt32LE(0x218);
  };

  it('lies page-aligned at the end of RAM', () => {
    expect(initrdAt({ initrd: new Uint8Array(5000) })).toBe(MiB(256) - 8192);
  });

  it('stays below initrd_addr_max', () => {
    expect(initrdAt({ initrd: new Uint8Array(4096), memory: GiB(4) })).toBe(0x7ffff000);
  });

  it('stays below the 32-bit hole where the kernel would take more', () => {
    const kernel = bzImage();
    kernel.writeUInt32LE(0xffffffff, 0x22c);
    const at = initrdAt({ kernel, initrd: new Uint8Array(4096), memory: GiB(5) });
    expect(at).toBe(GiB(3) - 4096);
  });

  // The kernel takes [16 MiB, 17 MiB).
  it('lies below the kernel when there is no room above it', () => {
    const memory = MiB(24);
    expect(initrdAt({ memory, initrd: new Uint8Array(MiB(7)) })).toBe(MiB(17));
    expect(initrdAt({ memory, initrd: new Uint8Array(MiB(7) + 1) })).toBe(MiB(9) - 4096);
    expect(initrdAt({ memory, initrd: new Uint8Array(MiB(15)) })).toBe(MiB(1));
    expectSoundPlan(plan({ memory, initrd: new Uint8Array(MiB(15)) }), memory);
  });

  it('lies below an ELF kernel too, under its lowest segment', () => {
    const kernel = elf64(MiB(8), [
      { gpa: MiB(20), data: code },
      { gpa: MiB(8), data: code },
    ]);
    expect(initrdAt({ kernel, memory: MiB(21), initrd: new Uint8Array(MiB(2)) })).toBe(MiB(6));
  });

  it('stays below initrd_addr_max there', () => {
    const kernel = bzImage();
    kernel.writeUInt32LE(MiB(8) - 1, 0x22c);
    const initrd = new Uint8Array(MiB(2));
    expect(initrdAt({ kernel, initrd })).toBe(MiB(6));
    expect(() => plan({ kernel, initrd: new Uint8Array(MiB(7) + 1) })).toThrow(/make the initrd/);
  });

  it('is refused when neither room holds it', () => {
    const memory = MiB(24);
    expect(() => plan({ memory, initrd: new Uint8Array(MiB(15) + 1) })).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_ARGUMENT',
        message: expect.stringContaining(
          `there are ${MiB(7)} above the kernel and ${MiB(15)} below it`,
        ),
      }),
    );
  });
});

describe('command line', () => {
  it('is refused when the kernel would cut it off', () => {
    expect(() => plan({ cmdline: 'x'.repeat(2047) })).not.toThrow();
    expect(() => plan({ cmdline: 'x'.repeat(2048) })).toThrow(/at most 2047/);
    expect(() => plan({ kernel: vmlinux(), cmdline: 'é'.repeat(1024) })).toThrow(/at most 2047/);
  });

  it('is refused with a NUL in it', () => {
    expect(() => plan({ cmdline: 'a\0b' })).toThrow(/NUL/);
  });
});

describe('setup_data', () => {
  it('is a list that the zero page starts', () => {
    const made = plan({
      setupData: [
        { type: 9, data: Buffer.from('seed of some length') },
        { type: 1, data: Buffer.from('second') },
      ],
    });
    const head = readPlan(made, LINUX_LAYOUT.zeroPage, 4096).readBigUInt64LE(0x250);
    const first = readPlan(made, head, 64);
    expect(first.readUInt32LE(8)).toBe(9);
    expect(first.subarray(16, 16 + first.readUInt32LE(12)).toString()).toBe('seed of some length');
    const second = readPlan(made, first.readBigUInt64LE(0), 64);
    expect(second.readBigUInt64LE(0)).toBe(0n);
    expect(second.subarray(16, 16 + second.readUInt32LE(12)).toString()).toBe('second');
  });

  it('is refused where a PVH entry could not hand it over', () => {
    const setupData = [{ type: 9, data: new Uint8Array(32) }];
    expect(() => plan({ kernel: vmlinux(0x1000100), setupData })).toThrow(/boot_params/);
  });
});

describe('ELF vmlinux', () => {
  it('with a PVH note is entered in 32-bit mode with hvm_start_info', () => {
    const made = plan({ kernel: vmlinux(0x1000100), initrd: Buffer.alloc(100, 3), memory: GiB(4) });
    expectSoundPlan(made, GiB(4));
    const { regs, sregs } = made.entry;
    expect(regs.rip).toBe(0x1000100n);
    expect(sregs.cr0).toBe(0x11n);
    expect(sregs.cr4).toBe(0n);
    expect(sregs.efer).toBe(0n);
    expect(sregs.cs).toMatchObject({ base: 0n, limit: 0xffffffff, db: 1, l: 0, type: 11 });
    expect(sregs.tr).toMatchObject({ base: 0n, limit: 0x67, type: 11, present: 1, s: 0 });
    const info = readPlan(made, regs.rbx!, 56);
    expect(info.readUInt32LE(0)).toBe(0x336ec578);
    expect(info.readUInt32LE(4)).toBe(1);
    expect(info.readUInt32LE(12)).toBe(1);
    const module = readPlan(made, info.readBigUInt64LE(16), 32);
    expect(module.readBigUInt64LE(8)).toBe(100n);
    expect(readPlan(made, module.readBigUInt64LE(0), 100).every((byte) => byte === 3)).toBe(true);
    expect(readPlan(made, info.readBigUInt64LE(24), 13).toString()).toBe('console=ttyS0');
    expect(readPlan(made, info.readBigUInt64LE(32), 8).toString()).toBe('RSD PTR ');
    const entries = info.readUInt32LE(48);
    const map = readPlan(made, info.readBigUInt64LE(40), entries * 24);
    const last = map.subarray((entries - 1) * 24);
    expect(last.readBigUInt64LE(0)).toBe(BigInt(GiB(4)));
    expect(last.readBigUInt64LE(8)).toBe(BigInt(GiB(1)));
    expect(last.readUInt32LE(16)).toBe(1);
  });

  it('without the note, or on request, is entered in 64-bit mode with boot_params', () => {
    for (const options of [
      { kernel: vmlinux() },
      { kernel: vmlinux(0x1000100), elfEntry: '64-bit' as const },
    ]) {
      const made = plan(options);
      expect(made.entry.regs.rip).toBe(0x1000000n);
      const page = readPlan(made, made.entry.regs.rsi!, 4096);
      expect(page.readUInt16LE(0x1fe)).toBe(0xaa55);
      expect(page.subarray(0x202, 0x206).toString()).toBe('HdrS');
      expect(e820(page).length).toBe(6);
    }
  });

  describe('finds its PVH note in a segment', () => {
    const other = { name: 'Linux', type: 0x101, description: Buffer.of(1, 2, 3, 4) };
    const buildId = { name: 'GNU', type: 3, description: Buffer.alloc(20, 0xab) };
    const xen = { name: 'Xen', type: 18, description: Buffer.of(0, 1, 0, 1) };
    const entry = (data: Uint8Array, alignment: number): bigint | undefined =>
      plan({
        kernel: elf64(0x1000000, [
          { gpa: 0x1000000, data: code },
          { type: 4, gpa: 0, data, alignment },
        ]),
      }).entry.regs.rip;

    it.each([
      { says: 4, packing: 4 },
      { says: 8, packing: 4 },
      { says: 8, packing: 8 },
      { says: 1, packing: 4 },
    ])('aligned to $says with notes packed by $packing', ({ says, packing }) => {
      for (const notes of [
        [xen],
        [other, xen],
        [xen, other],
        [buildId, other, xen],
        [other, buildId, other, xen, buildId],
      ]) {
        expect(entry(encodeNotes(notes, packing), says)).toBe(0x1000100n);
      }
    });

    it('aligned to 8 with notes packed by 4 in sections that begin at multiples of 8', () => {
      const first = encodeNotes([buildId], 4);
      expect(first.length % 8).toBe(4);
      const data = Buffer.concat([first, Buffer.alloc(4), encodeNotes([xen], 4)]);
      expect(entry(data, 8)).toBe(0x1000100n);
    });

    it('and is refused with one that is longer than the segment, however it is packed', () => {
      const data = encodeNotes([other, xen], 4);
      data.writeUInt32LE(0x1000, 4);
      for (const alignment of [4, 8]) expect(() => entry(data, alignment)).toThrow(/longer/);
    });
  });

  it('is refused for PVH without the note, or with an entry outside of it', () => {
    expect(() => plan({ kernel: vmlinux(), elfEntry: 'pvh' })).toThrow(/PVH note/);
    expect(() => plan({ kernel: vmlinux(0x1005000) })).toThrow(/PVH entry/);
  });

  it('is refused with a segment below 1 MiB, outside RAM, or over another', () => {
    const refused = (gpa: number) =>
      elf64(0x1000000, [
        { gpa: 0x1000000, data: code },
        { gpa, data: code },
      ]);
    for (const gpa of [0x8000, MiB(256) - 0x1000, 0x1002000]) {
      expect(() => plan({ kernel: refused(gpa) })).toThrow(
        expect.objectContaining({ code: 'ERR_KERNEL_IMAGE' }),
      );
    }
  });
});

describe('options', () => {
  it('are refused by name', () => {
    expect(() => plan({ vcpus: 0 })).toThrow(/vcpus/);
    expect(() => plan({ vcpus: 256 })).toThrow(/vcpus/);
    expect(() => plan({ memory: 1000 })).toThrow(/memory/);
    expect(() => plan({ irqchip: false as unknown as true })).toThrow(/irqchip/);
    expect(() => plan({ kernel: Buffer.from('\x1f\x8b compressed') })).toThrow(/decompress/);
  });
});
