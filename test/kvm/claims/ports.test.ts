import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { createPorts, type Operation, result, runAgain, runList } from '../support/ports.js';

const RINGS = [0, 3] as const;
const SIZES = [1, 2, 4] as const;
const VALUES = { 1: 0xa5, 2: 0xbeef, 4: 0xdeadbeef } as const;
const BUFFER = 0x300000n;

describe.each(RINGS)('claimed ports, ring %i', (ring) => {
  it('answer reads of each size, sync and async', async () => {
    const list = SIZES.flatMap((size): Operation[] => [
      { op: 'in', size, port: 0x500 },
      { op: 'in', size, port: 0x700 },
    ]);
    const vm = await createPorts(list, { ring });
    const seen: string[] = [];
    vm.claimPorts({
      base: 0x500,
      length: 4,
      read: (port, size) => {
        seen.push(`${port.toString(16)}/${size}`);
        return VALUES[size];
      },
    });
    vm.claimPorts({
      base: 0x700,
      length: 4,
      read: async (_port, size) => {
        await sleep(1);
        return VALUES[size];
      },
    });
    expect(await runList(vm, list)).toEqual(
      SIZES.flatMap((size) => [VALUES[size], VALUES[size]].map(BigInt)),
    );
    expect(seen).toEqual(['500/1', '500/2', '500/4']);
  });

  it('get writes of each size in order, sync and async', async () => {
    const list = SIZES.flatMap((size): Operation[] => [
      { op: 'out', size, port: 0x501, value: VALUES[size] },
      { op: 'out', size, port: 0x701, value: VALUES[size] },
    ]);
    const vm = await createPorts(list, { ring });
    const seen: unknown[] = [];
    vm.claimPorts({
      base: 0x500,
      length: 8,
      write: (port, size, value) => {
        seen.push([port, size, value]);
      },
    });
    vm.claimPorts({
      base: 0x700,
      length: 8,
      write: async (port, size, value) => {
        await sleep(1);
        seen.push([port, size, value]);
      },
    });
    await runList(vm, list);
    expect(seen).toEqual(
      SIZES.flatMap((size) => [
        [0x501, size, VALUES[size]],
        [0x701, size, VALUES[size]],
      ]),
    );
  });

  it.each(SIZES)('take string output of %i bytes an item', async (size) => {
    const items = 3000;
    const vm = await createPorts(
      [{ op: 'outs', size, port: 0x500, count: items, address: BUFFER }],
      { ring },
    );
    const content = Buffer.from(Array.from({ length: items * size }, (_, i) => (i * 31) & 0xff));
    vm.memory.write(BUFFER, content);
    const got = Buffer.alloc(items * size);
    let at = 0;
    vm.claimPorts({
      base: 0x500,
      write: (_port, width, value) => {
        at = got.writeUIntLE(value, at, width);
      },
    });
    await runList(vm, []);
    expect(at).toBe(items * size);
    expect(got.equals(content)).toBe(true);
  });

  it.each(SIZES)('give string input of %i bytes an item', async (size) => {
    const items = 3000;
    const vm = await createPorts(
      [{ op: 'ins', size, port: 0x500, count: items, address: BUFFER }],
      { ring },
    );
    const expected = Buffer.alloc(items * size);
    let at = 0;
    vm.claimPorts({
      base: 0x500,
      read: (_port, width) => {
        const value = (at * 2654435761) % 2 ** (8 * width);
        // What KVM reads ahead is the guest's all the same.
        if (at < expected.length) expected.writeUIntLE(value, at, width);
        at += width;
        return value;
      },
    });
    await runList(vm, []);
    expect(vm.memory.read(BUFFER, expected.length).equals(expected)).toBe(true);
  });

  it('without a handler read ones, and drop writes', async () => {
    const list: Operation[] = [
      { op: 'in', size: 1, port: 0x500 },
      { op: 'in', size: 4, port: 0x500 },
      { op: 'out', size: 2, port: 0x500, value: 1 },
      { op: 'in', size: 2, port: 0x7f0 },
    ];
    const vm = await createPorts(list, { ring });
    vm.claimPorts({ base: 0x500 });
    expect(await runList(vm, list)).toEqual([0xffn, 0xffffffffn, 0n, 0xffffn]);
  });

  it('are given back by release, at once and for good', async () => {
    const list: Operation[] = [{ op: 'in', size: 1, port: 0x500 }];
    const vm = await createPorts(list, { ring });
    const claim = vm.claimPorts({ base: 0x500, read: () => 1 });
    expect(await runList(vm, list)).toEqual([1n]);
    claim.release();
    claim.release();
    await runAgain(vm);
    expect(result(vm, 0)).toBe(0xffn);
    // Free for another, while the machine runs.
    {
      using again = vm.claimPorts({ base: 0x500, read: () => 2 });
      expect(again).toBeDefined();
      await runAgain(vm);
      expect(result(vm, 0)).toBe(2n);
    }
    await runAgain(vm);
    expect(result(vm, 0)).toBe(0xffn);
  });
});

describe('a claim is refused', () => {
  it.each([
    ['on a device that the machine has', 0x3f8, 1],
    ['on the last port of a device', 0x3f0, 9],
    ['of ports beyond the last', 0xfff0, 17],
    ['of no ports', 0x500, 0],
    ['of a port that is none', 0x10000, 1],
    ['of a negative port', -1, 1],
  ])('%s', async (_what, base, length) => {
    const vm = await createPorts([]);
    expect(() => vm.claimPorts({ base, length })).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
    );
  });

  it('on ports that another has', async () => {
    const vm = await createPorts([]);
    vm.claimPorts({ base: 0x500, length: 4 });
    expect(() => vm.claimPorts({ base: 0x503 })).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
    );
    vm.claimPorts({ base: 0x504 });
  });
});
