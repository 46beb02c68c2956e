import { describe, expect, it } from 'vitest';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { GiB, MiB } from '../../../lib/units.js';
import { createVm, setWord, until } from '../support/machines.js';
import { bootRing3Smp, line } from '../support/multi.js';

const FOUR_GIB = 0x100000000n;
const HOLE = 0xc0000000n;

describe('guest memory', () => {
  it('gives back what was written, at both ends and across pages', async () => {
    const vm = await createVm({ memory: MiB(2), irqchip: false });
    const bytes = Buffer.from(Array.from({ length: 8195 }, (_, i) => (i * 37 + 11) & 0xff));
    for (const gpa of [0n, 4095n, BigInt(MiB(2) - bytes.length)]) {
      vm.memory.write(gpa, bytes);
      expect(vm.memory.read(gpa, bytes.length)).toEqual(bytes);
    }
    expect(vm.memory.read(BigInt(MiB(2)), 0)).toHaveLength(0);
  });

  it.each<[string, bigint, number]>([
    ['the byte behind RAM', BigInt(MiB(2)), 1],
    ['a range that ends one byte late', BigInt(MiB(2) - 4), 5],
    ['a far address', 1n << 51n, 1],
    ['the last address', 0xffffffffffffffffn, 1],
    ['a range that wraps', 0xfffffffffffffff0n, 64],
  ])('refuses %s, and writes nothing', async (_what, gpa, length) => {
    const vm = await createVm({ memory: MiB(2), irqchip: false });
    expect(() => vm.memory.read(gpa, length)).toThrow(
      expect.objectContaining({ code: 'ERR_GUEST_ADDRESS' }),
    );
    expect(() => vm.memory.write(gpa, Buffer.alloc(length, 0xaa))).toThrow(
      expect.objectContaining({ code: 'ERR_GUEST_ADDRESS' }),
    );
    expect(vm.memory.read(BigInt(MiB(2) - 8), 8)).toEqual(Buffer.alloc(8));
  });

  it('refuses addresses and lengths that are none', async () => {
    const vm = await createVm({ memory: MiB(2), irqchip: false });
    const refused = expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' });
    expect(() => vm.memory.read(-1n, 1)).toThrow(refused);
    expect(() => vm.memory.read(0 as never, 1)).toThrow(refused);
    expect(() => vm.memory.read(0n, -1)).toThrow(refused);
    expect(() => vm.memory.read(0n, 1.5)).toThrow(refused);
    expect(() => vm.memory.read(0n, GiB(2))).toThrow(/at most 1 GiB/);
    expect(() => vm.memory.write(0n, 'text' as never)).toThrow(refused);
  });

  it('goes on above the 3 GiB hole, which is no RAM', async () => {
    const vm = await createVm({ memory: GiB(3) + MiB(8), irqchip: false });
    expect(vm.memory.slots()).toMatchObject([
      { slot: 0, gpa: 0n, size: GiB(3) },
      { slot: 1, gpa: FOUR_GIB, size: MiB(8) },
    ]);
    vm.memory.write(HOLE - 4n, Buffer.from('last'));
    vm.memory.write(FOUR_GIB, Buffer.from('next'));
    vm.memory.write(FOUR_GIB + BigInt(MiB(8)) - 3n, Buffer.from('end'));
    expect(vm.memory.read(HOLE - 4n, 4).toString()).toBe('last');
    expect(vm.memory.read(FOUR_GIB, 4).toString()).toBe('next');
    expect(vm.memory.read(FOUR_GIB + BigInt(MiB(8)) - 3n, 3).toString()).toBe('end');
    for (const [gpa, length] of [
      [HOLE - 4n, 8],
      [HOLE, 1],
      [FOUR_GIB - 1n, 1],
      [FOUR_GIB - 4n, 8],
      [FOUR_GIB + BigInt(MiB(8)), 1],
    ] as const) {
      expect(() => vm.memory.read(gpa, length), `${gpa}`).toThrow(
        expect.objectContaining({ code: 'ERR_GUEST_ADDRESS' }),
      );
      expect(() => vm.memory.write(gpa, Buffer.alloc(length))).toThrow(
        expect.objectContaining({ code: 'ERR_GUEST_ADDRESS' }),
      );
    }
  });

  it('is shared with a guest that runs', async () => {
    const vm = await bootRing3Smp(1);
    // An increment under way may win over the write: then write again.
    await until('the guest counts on from what the host wrote', () => {
      if (line(vm, 0) < 1n << 40n) setWord(vm, GUEST_ABI.LINES, 1n << 40n);
      return line(vm, 0) > 1n << 40n;
    });
  });
});
