/** Whatever the image: a plan that keeps inside RAM, or a KvmsnapError. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type BootPlan, planBare, planLinux } from '../../../lib/boot/index.js';
import { KvmsnapError } from '../../../lib/errors.js';
import { GiB, MiB } from '../../../lib/units.js';
import { bzImage, elf64, encodeNotes, expectSoundPlan, pvhNote, type TestNote } from './support.js';

const RUNS = 400;
const vmlinux = elf64(0x1000000, [
  { gpa: 0x1000000, data: Buffer.alloc(0x400, 0x90), memorySize: 0x2000 },
  { gpa: 0x1002000, data: Buffer.alloc(0x100, 1) },
  pvhNote(0x1000010),
]);
const kernel = bzImage(0x800);
const memories = fc.constantFrom(MiB(1), MiB(32), MiB(256), GiB(3), GiB(3.5), GiB(5));

/** Values that sit on edges of fields, or of sums of fields. */
const edge = fc.constantFrom(
  0n,
  1n,
  0xffn,
  0xfffn,
  0x1000n,
  0x7fffffffn,
  0x80000000n,
  0xffffffffn,
  0x100000000n,
  0x7fffffffffffffffn,
  0xfffffffffffff000n,
  0xffffffffffffffffn,
);

interface Mutation {
  at: number;
  value: bigint;
  width: 1 | 2 | 4 | 8;
}

/** Overwrites of 1 to 8 bytes, mostly in the headers, then perhaps a cut. */
const mutated = (original: Uint8Array, headerEnd: number) =>
  fc
    .record({
      changes: fc.array(
        fc.record<Mutation>({
          at: fc.oneof(
            { weight: 4, arbitrary: fc.nat(headerEnd - 1) },
            { weight: 1, arbitrary: fc.nat(original.length - 1) },
          ),
          value: fc.oneof(edge, fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })),
          width: fc.constantFrom(1, 2, 4, 8),
        }),
        { maxLength: 6 },
      ),
      cut: fc.option(fc.nat(original.length), { freq: 5 }),
    })
    .map(({ changes, cut }) => {
      const bytes = Uint8Array.from(original);
      for (const { at, value, width } of changes) {
        for (let i = 0; i < width && at + i < bytes.length; i++) {
          bytes[at + i] = Number((value >> BigInt(8 * i)) & 0xffn);
        }
      }
      return cut === null ? bytes : bytes.subarray(0, cut);
    });

/** Returns whether a plan was made. */
function planned(make: () => BootPlan, memory: number): boolean {
  let plan: BootPlan;
  try {
    plan = make();
  } catch (error) {
    expect(error).toBeInstanceOf(KvmsnapError);
    expect((error as KvmsnapError).code).toMatch(/^ERR_(KERNEL_IMAGE|INVALID_ARGUMENT)$/);
    return false;
  }
  expectSoundPlan(plan, memory);
  return true;
}

const linux = (image: Uint8Array, memory: number, extra = {}) =>
  planned(
    () => planLinux({ kernel: image, cmdline: 'quiet', memory, vcpus: 2, irqchip: true, ...extra }),
    memory,
  );

describe('property: hostile kernels', () => {
  it('the images that are mutated here load when they are whole', () => {
    expect(linux(kernel, MiB(256))).toBe(true);
    expect(linux(vmlinux, MiB(256))).toBe(true);
    expect(
      planned(() => planBare({ image: vmlinux, mode: 'long', ring: 3, memory: MiB(32) }), MiB(32)),
    ).toBe(true);
  });

  it('mutated bzImages', () => {
    fc.assert(
      fc.property(mutated(kernel, 0x290), memories, fc.nat(100_000), (image, memory, initrd) => {
        linux(image, memory, { initrd: new Uint8Array(initrd) });
      }),
      { numRuns: RUNS },
    );
  });

  it('mutated bzImages whose magic is whole', () => {
    const magic = kernel.subarray(0x1fe, 0x206);
    const fields = mutated(kernel, 0x290)
      .filter((image) => image.length >= 0x206)
      .map((image) => {
        image.set(magic, 0x1fe);
        return image;
      });
    fc.assert(
      fc.property(fields, memories, (image, memory) => {
        linux(image, memory);
      }),
      { numRuns: RUNS },
    );
  });

  it('mutated ELF kernels, by every entry', () => {
    const entries = fc.constantFrom('auto', 'pvh', '64-bit');
    fc.assert(
      fc.property(mutated(vmlinux, 64 + 3 * 56), memories, entries, (image, memory, elfEntry) => {
        linux(image, memory, { elfEntry });
      }),
      { numRuns: RUNS },
    );
  });

  it('ELF kernels with any program headers', () => {
    const number = fc.oneof(edge, fc.bigInt({ min: 0n, max: BigInt(GiB(6)) }));
    const header = fc.record({
      type: fc.constantFrom(1, 1, 1, 4),
      fields: fc.tuple(number, number, number, number, number, number),
    });
    fc.assert(
      fc.property(fc.array(header, { maxLength: 5 }), memories, (headers, memory) => {
        const image = elf64(
          0x1000000,
          headers.map(({ type }) => ({ type, gpa: 0, data: new Uint8Array(64) })),
        );
        headers.forEach(({ fields }, index) => {
          fields.forEach((value, field) => {
            image.writeBigUInt64LE(value, 64 + index * 56 + 8 + field * 8);
          });
        });
        linux(image, memory);
        planned(() => planBare({ image, mode: 'long', ring: 0, memory }), memory);
        planned(() => planBare({ image, mode: 'protected', ring: 0, memory }), memory);
      }),
      { numRuns: RUNS },
    );
  });

  const notesOnly = (data: Uint8Array, alignment: number): Uint8Array =>
    elf64(0x1000000, [
      { gpa: 0x1000000, data: Buffer.alloc(0x400, 0x90) },
      { type: 4, gpa: 0, data, alignment },
    ]);

  it('ELF kernels whose PVH note is among others, packed as they say or not', () => {
    const note = fc.record<TestNote>({
      name: fc.constantFrom('GNU', 'Linux', 'X', 'solo5', 'FreeBSD', 'stapsdt'),
      type: fc.nat(0x1000),
      description: fc.uint8Array({ maxLength: 40 }),
    });
    const pvh = { name: 'Xen', type: 18, description: Buffer.of(0x10, 0, 0, 1) };
    const layout = fc.constantFrom([4, 4], [8, 4], [8, 8], [0, 4]);
    fc.assert(
      fc.property(fc.array(note), fc.array(note), layout, (before, after, [says, packing]) => {
        const kernel = notesOnly(encodeNotes([...before, pvh, ...after], packing!), says!);
        const options = { kernel, cmdline: '', memory: MiB(32), vcpus: 1, irqchip: true } as const;
        expect(planLinux({ ...options, elfEntry: 'pvh' }).entry.regs.rip).toBe(0x1000010n);
      }),
      { numRuns: RUNS },
    );
  });

  it('ELF kernels with any bytes for notes', () => {
    const word = fc.constantFrom(0, 1, 4, 5, 8, 12, 18, 0x006e6558, 0x1000010, 0xfffffff0);
    const words = fc.array(word, { maxLength: 64 }).map((list) => {
      return Buffer.from(Uint32Array.from(list).buffer);
    });
    fc.assert(
      fc.property(words, fc.constantFrom(4, 8), memories, (data, alignment, memory) => {
        linux(notesOnly(data, alignment), memory);
      }),
      { numRuns: RUNS },
    );
  });

  it('bytes that are no image at all', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2048 }), memories, (image, memory) => {
        expect(linux(image, memory)).toBe(false);
      }),
      { numRuns: RUNS },
    );
  });
});

describe('property: hostile options of bare guests', () => {
  it('any address in any mode', () => {
    const address = fc.option(
      fc.oneof(edge, fc.bigInt({ min: -4096n, max: 0x200000n }), fc.bigInt({ max: 1n << 65n })),
      { nil: undefined },
    );
    fc.assert(
      fc.property(
        fc.record({
          mode: fc.constantFrom('real', 'protected', 'long'),
          ring: fc.constantFrom(0, 3),
          memory: fc.oneof(memories, fc.constantFrom(4096, 65536, 0x80000)),
          loadAddress: address,
          entry: address,
          stack: address,
          image: fc.uint8Array({ maxLength: 64 }),
        }),
        ({ loadAddress, entry, stack, ...rest }) => {
          const options = {
            ...rest,
            ...(loadAddress === undefined ? {} : { loadAddress }),
            ...(entry === undefined ? {} : { entry }),
            ...(stack === undefined ? {} : { stack }),
          } as Parameters<typeof planBare>[0];
          planned(() => planBare(options), options.memory);
        },
      ),
      { numRuns: RUNS },
    );
  });
});
