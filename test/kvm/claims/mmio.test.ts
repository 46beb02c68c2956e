import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { createPorts, type Operation, result, runAgain, runList } from '../support/ports.js';

const RINGS = [0, 3] as const;
const SIZES = [1, 2, 4, 8] as const;
const BASE = 0xd0000000n;
const VALUE = 0x1122_3344_a5b6_c7d8n;
const truncated = (size: number): bigint => VALUE & ((1n << BigInt(8 * size)) - 1n);

describe.each(RINGS)('claimed MMIO, ring %i', (ring) => {
  it('answers reads of each size, sync and async', async () => {
    const list = SIZES.flatMap((size): Operation[] => [
      { op: 'load', size, address: BASE + 0x10n },
      { op: 'load', size, address: BASE + 0x1010n },
    ]);
    const vm = await createPorts(list, { ring });
    const seen: unknown[] = [];
    vm.claimMmio({
      base: BASE,
      length: 0x1000,
      read: (gpa, size) => {
        seen.push([gpa, size]);
        return truncated(size);
      },
    });
    vm.claimMmio({
      base: BASE + 0x1000n,
      length: 0x1000,
      read: async (_gpa, size) => {
        await sleep(1);
        return truncated(size);
      },
    });
    expect(await runList(vm, list)).toEqual(
      SIZES.flatMap((size) => [truncated(size), truncated(size)]),
    );
    expect(seen).toEqual(SIZES.map((size) => [BASE + 0x10n, size]));
  });

  it('gets writes of each size in order, sync and async', async () => {
    const list = SIZES.flatMap((size): Operation[] => [
      { op: 'store', size, address: BASE + 0x20n, value: VALUE },
      { op: 'store', size, address: BASE + 0x1020n, value: VALUE },
    ]);
    const vm = await createPorts(list, { ring });
    const seen: unknown[] = [];
    vm.claimMmio({
      base: BASE,
      length: 0x1000,
      write: (gpa, size, value) => {
        seen.push([gpa, size, value]);
      },
    });
    vm.claimMmio({
      base: BASE + 0x1000n,
      length: 0x1000,
      write: async (gpa, size, value) => {
        await sleep(1);
        seen.push([gpa, size, value]);
      },
    });
    await runList(vm, list);
    expect(seen).toEqual(
      SIZES.flatMap((size) => [
        [BASE + 0x20n, size, truncated(size)],
        [BASE + 0x1020n, size, truncated(size)],
      ]),
    );
  });

  it('that crosses a page comes in pieces, all of which count', async () => {
    const list: Operation[] = [
      { op: 'load', size: 8, address: BASE + 0xffcn },
      { op: 'store', size: 8, address: BASE + 0xffcn, value: VALUE },
    ];
    const vm = await createPorts(list, { ring });
    const device = Buffer.from(Array.from({ length: 0x2000 }, (_, i) => i & 0xff));
    const written = Buffer.alloc(0x2000);
    vm.claimMmio({
      base: BASE,
      length: 0x2000,
      read: (gpa, size) => {
        const wide = Buffer.alloc(8);
        device.copy(wide, 0, Number(gpa - BASE), Number(gpa - BASE) + size);
        return wide.readBigUInt64LE();
      },
      write: (gpa, size, value) => {
        const wide = Buffer.alloc(8);
        wide.writeBigUInt64LE(value);
        wide.copy(written, Number(gpa - BASE), 0, size);
      },
    });
    const [loaded] = await runList(vm, list);
    expect(loaded).toBe(device.readBigUInt64LE(0xffc));
    expect(written.readBigUInt64LE(0xffc)).toBe(VALUE);
  });

  it('unclaimed reads ones, drops writes, and can be claimed later', async () => {
    const list: Operation[] = [
      { op: 'store', size: 4, address: BASE, value: 5n },
      { op: 'load', size: 4, address: BASE },
    ];
    const vm = await createPorts(list, { ring });
    expect(await runList(vm, list)).toEqual([0n, 0xffffffffn]);
    const claim = vm.claimMmio({ base: BASE, length: 4, read: () => 7n });
    await runAgain(vm);
    expect(result(vm, 1)).toBe(7n);
    claim.release();
    await runAgain(vm);
    expect(result(vm, 1)).toBe(0xffffffffn);
  });
});

describe('a claim of MMIO is refused', () => {
  it.each<[string, bigint, number]>([
    ['on RAM', 0x1000n, 0x1000],
    ['that begins in RAM', 0xfff000n, 0x2000],
    ['beyond 2^52', 1n << 52n, 0x1000],
    ['of no bytes', BASE, 0],
    ['of half a byte', BASE, 0.5],
  ])('%s', async (_what, base, length) => {
    const vm = await createPorts([]);
    expect(() => vm.claimMmio({ base, length })).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
    );
  });

  it('on a range that another has', async () => {
    const vm = await createPorts([]);
    vm.claimMmio({ base: BASE, length: 0x1000 });
    expect(() => vm.claimMmio({ base: BASE + 0xfffn, length: 1 })).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
    );
  });
});
