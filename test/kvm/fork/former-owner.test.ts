/** A pool's machine, and calls of an owner that has closed it. */
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { KvmsnapError, Pool, Snapshot, Vm } from '../../../lib/index.js';
import { MiB } from '../../../lib/units.js';
import { MemorySnapshot } from '../../../lib/vm/memory-snapshot.js';
import { rounds } from '../support/host.js';
import { bootGuest, setWord, word } from '../support/machines.js';
import { scratch } from '../support/scratch.js';

const AT = 0x300000n;
const SECRET = 'SECRET OF THE NEXT';

/** What an owner may have begun when it closes its machine. */
const CALLS: Record<string, (vm: Vm, folder: string, nth: number) => Promise<unknown>> = {
  'snapshot in a new store': (vm, folder, nth) =>
    vm.snapshot({ store: join(folder, `${nth}`), then: 'pause' }),
  'snapshot that stops': (vm, folder, nth) =>
    vm.snapshot({ store: join(folder, `${nth}`), then: 'stop' }),
  'snapshot in memory': (vm) => vm.snapshot({ then: 'pause' }),
  fork: (vm) => vm.fork(2),
  reset: (vm) => vm.reset(),
  start: (vm) => vm.start(),
  pause: (vm) => vm.pause(),
  kill: (vm) => vm.kill(),
  pageIn: (vm) => vm.pageIn(),
  'registers in two steps': (vm) => vm.vcpus[0]!.setRegs({ rax: 0xbadn }),
  run: (vm) => vm.vcpus[0]!.run(),
  loadState: async (vm) => vm.loadState(await vm.saveState()),
  addSlot: (vm) => vm.memory.addSlot({ slot: 9, gpa: 0x80000000n, size: 4096 }),
  dirty: async (vm) => {
    for await (const _ of vm.dirty({ tracker: 'cow', every: 1 }));
  },
};

/** Everything that a call gave and that has memory. */
async function memoryOf(value: unknown): Promise<string[]> {
  const found: string[] = [];
  for (const thing of Array.isArray(value) ? value : [value]) {
    const vm =
      thing instanceof Snapshot || thing instanceof MemorySnapshot ? await thing.restore() : thing;
    if (!(vm instanceof Vm)) continue;
    found.push(vm.memory.read(AT, SECRET.length).toString());
    await vm.close();
    if (thing instanceof MemorySnapshot || thing instanceof Snapshot) thing.close();
  }
  return found;
}

describe.each(Object.entries(CALLS))('%s, begun by an owner that closes', (_, call) => {
  it('never sees the next owner, and does nothing to its machine', async () => {
    const folder = scratch();
    const vm = await bootGuest('counter');
    using instant = await vm.snapshot();
    await vm.close();
    await using pool = await Pool.create(instant, { size: 1, max: 1 });
    for (let nth = 0; nth < rounds(12); nth++) {
      const former = await pool.get();
      if (nth % 2 === 1) await former.start();
      const pending = call(former, folder, nth).then(
        (value) => ({ value }),
        (error: unknown) => ({ error }),
      );
      for (let wait = 0; wait < nth % 5; wait++) await turn();
      await former.close();
      const next = await pool.get();
      const registers = await next.vcpus[0]!.getRegs();
      next.memory.write(AT, Buffer.from(SECRET));
      await next.start();
      const outcome = await pending;
      if ('error' in outcome) {
        expect(outcome.error).toBeInstanceOf(KvmsnapError);
        expect((outcome.error as KvmsnapError).code).toMatch(/CLOSED|POISONED|STATE/);
      } else {
        for (const memory of await memoryOf(outcome.value)) expect(memory).not.toBe(SECRET);
      }
      expect(next.status).toBe('running');
      await next.pause();
      expect(next.memory.slots()).toHaveLength(1);
      expect((await next.vcpus[0]!.getRegs()).rax).not.toBe(0xbadn);
      expect(registers.rax).not.toBe(0xbadn);
      await next.close();
    }
  });
});

it('a former owner says ERR_CLOSED to every call, and its claims answer nobody', async () => {
  const vm = await bootGuest('counter');
  using instant = await vm.snapshot();
  await using pool = await Pool.create(instant, { size: 1, max: 1 });
  const former = await pool.get();
  const claim = former.claimPorts({ base: 0x80, read: () => 1 });
  await former.close();
  const next = await pool.get();
  claim.release();
  next.claimPorts({ base: 0x80, read: () => 2 });
  setWord(next, 0x800, 7n);
  const closed = expect.objectContaining({ code: 'ERR_CLOSED' });
  expect(() => former.memory.write(AT, Buffer.alloc(8))).toThrow(closed);
  expect(() => former.memory.slots()).toThrow(closed);
  expect(() => former.claimPorts({ base: 0x90 })).toThrow(closed);
  expect(() => former.setIrqLine(4, true)).toThrow(closed);
  expect(() => former.describe()).toThrow(closed);
  for (const [name, call] of Object.entries(CALLS)) {
    // What wants the machine gone, or goes on until it is, has what it wants.
    if (name === 'dirty' || name === 'kill') continue;
    const late = call(former, scratch(), 0).then(
      () => 'done',
      (error: KvmsnapError) => error.code,
    );
    expect(await late, name).toBe('ERR_CLOSED');
  }
  expect(former.status).toBe('closed');
  expect(word(next, 0x800)).toBe(7n);
  expect(next.status).toBe('paused');
  await former.close();
  await next.close();
});

it('a freeze that is finished after its machine was closed is answered all the same', async () => {
  for (let round = 0; round < rounds(24); round++) {
    const vm = await bootGuest('counter');
    vm.memory.write(0x400000n, Buffer.alloc(MiB(8), round + 1));
    (await vm.snapshot()).close();
    vm.memory.write(0x400000n, Buffer.alloc(MiB(8), round + 2));
    const pending = vm.snapshot().then(
      (snapshot) => snapshot.close(),
      (error: KvmsnapError) => expect(error.code).toBe('ERR_CLOSED'),
    );
    for (let wait = 0; wait <= round % 4; wait++) await turn();
    await vm.close();
    await pending;
  }
});
