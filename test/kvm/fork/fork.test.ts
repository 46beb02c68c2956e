import { readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { SnapshotStore, type Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { GiB, MiB } from '../../../lib/units.js';
import { installedMemory, rounds } from '../support/host.js';
import { firstBreak, Sent } from '../support/lines.js';
import {
  bootGuest,
  count,
  createGuest,
  createVm,
  setWord,
  tracked,
  untilCounted,
  word,
} from '../support/machines.js';
import { bootRing3Smp, line, untilAllCount } from '../support/multi.js';
import { scratch } from '../support/scratch.js';
import { bootWriter, inOrder, salts, writerFaults } from '../support/writer.js';

const openFiles = () => readdirSync('/proc/self/fd').length;
const threads = () => readdirSync('/proc/self/task').length;

describe('a fork of a running machine', () => {
  it('has exactly the memory of one instant: 300 forks of a writer', async () => {
    const pages = 48;
    const vm = await bootWriter(pages);
    const expectNext = inOrder(pages);
    for (let round = 0; round < rounds(300); round++) {
      const [fork] = await vm.fork();
      expect(vm.status).toBe('running');
      expect(fork!.status).toBe('paused');
      expectNext(fork!);
      await fork!.close();
    }
    await untilCounted(vm, 2n, 'writer');
    expect(word(vm, GUEST_ABI.ERRORS)).toBe(0n);
  });

  it('several vCPUs: 100 forks, each with a sum that fits its parts', async () => {
    const vm = await bootRing3Smp(2);
    for (let round = 0; round < rounds(100); round++) {
      const [fork] = (await vm.fork()) as [Vm];
      const sum = fork.vcpus.reduce((total, { index }) => total + line(fork, index), 0n);
      expect(sum - count(fork)).toBeGreaterThanOrEqual(0n);
      expect(sum - count(fork)).toBeLessThanOrEqual(2n);
      if (round % 10 === 0) {
        await fork.resume();
        await untilAllCount(fork);
      }
      await fork.close();
    }
    await untilAllCount(vm);
  });

  it('goes its own way, as its parent does: no page of one shows in another', async () => {
    const pages = 64;
    const vm = await bootWriter(pages);
    const forks = (await vm.fork(3)).map(tracked);
    const machines = [vm, ...forks];
    for (const [i, machine] of machines.entries()) {
      setWord(machine, GUEST_ABI.SALT, BigInt(i + 1));
      if (machine !== vm) await machine.resume();
    }
    for (const machine of machines) await untilCounted(machine, 3n, 'writer');
    for (const [i, machine] of machines.entries()) {
      await machine.pause();
      expect(writerFaults(machine, pages)).toEqual([]);
      expect(salts(machine, pages)).toEqual(new Set([BigInt(i + 1)]));
    }
  });

  it('forks again, and outlives its parents: a tree, closed from the root', async () => {
    const pages = 32;
    const family = [await bootWriter(pages)];
    for (let depth = 1; depth <= 6; depth++) {
      const forks = (await family.at(-1)!.fork(2)).map(tracked);
      for (const fork of forks) await fork.resume();
      family.push(...forks);
    }
    for (const machine of family) {
      await untilCounted(machine, 2n, 'writer');
      await machine.pause();
      expect(writerFaults(machine, pages)).toEqual([]);
      await machine.close();
    }
  });

  it('goes on with what the guest was sending', async () => {
    const vm = await bootGuest('counter', { regs: { rsi: 2000n } });
    const sent = new Sent(vm);
    await sent.lines(3);
    for (let round = 0; round < rounds(20); round++) {
      using snapshot = await vm.snapshot({ then: 'pause' });
      await sent.settle();
      const fork = tracked(await snapshot.restore());
      const rest = new Sent(fork);
      await fork.resume();
      await rest.lines(3);
      await fork.close();
      expect(firstBreak(sent.text + rest.text)).toBeUndefined();
      await vm.resume();
      await sent.lines(1);
    }
  });
});

describe('forks', () => {
  it('of a machine that never ran, of one that is paused, and of one with memory above the hole', async () => {
    const created = await createGuest('counter');
    const [first] = (await created.fork(1)) as [Vm];
    await tracked(first).start();
    await untilCounted(first);
    await first.pause();
    const [second] = (await first.fork()) as [Vm];
    expect(count(tracked(second))).toBe(count(first));
    if (installedMemory() < GiB(2)) return;
    const large = await createGuest('counter', { memory: GiB(3) + MiB(64) });
    const top = GUEST_ABI.HIGH_START + BigInt(MiB(32));
    large.memory.write(top, Buffer.from('high'));
    const [copy] = (await large.fork()) as [Vm];
    tracked(copy);
    large.memory.write(top, Buffer.from('HIGH'));
    expect(copy.memory.read(top, 4).toString()).toBe('high');
  });

  it('come from a snapshot in a store, and from one in memory, whatever became of its machine', async () => {
    const store = await SnapshotStore.open(`${scratch()}/store`, { create: true, durable: false });
    const vm = await bootWriter(16);
    const stored = await vm.snapshot({ store });
    const inMemory = await vm.snapshot();
    await vm.close();
    for (const snapshot of [stored, inMemory]) {
      const forks = await snapshot.fork(3);
      snapshot.close();
      for (const fork of forks) {
        expect(writerFaults(tracked(fork), 16)).toEqual([]);
        await fork.resume();
        await untilCounted(fork, 2n, 'writer');
      }
    }
    await expect(inMemory.restore()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  it('many at once: 200 of them, and nothing is left when they are closed', async () => {
    const vm = await bootWriter(16);
    (await vm.fork())[0]!.close();
    await vm.pause();
    const before = { files: openFiles(), threads: threads() };
    const forks = await vm.fork(200);
    expect(forks).toHaveLength(200);
    // One that waits to be used has no thread.
    expect(threads()).toBeLessThan(before.threads + 20);
    for (const fork of forks.slice(0, 20)) await fork.resume();
    for (const fork of forks.slice(0, 20)) await untilCounted(fork, 1n, 'writer');
    expect(writerFaults(forks.at(-1)!, 16)).toEqual([]);
    await Promise.all(forks.map((fork) => fork.close()));
    // And the layer with what the writer has written since its first fork.
    expect(openFiles()).toBeLessThanOrEqual(before.files + 1);
  });

  it('of memory in very many pieces: they are put together beside the event loop, once', async () => {
    const vm = await createVm({ memory: MiB(32), irqchip: false });
    await (await vm.fork())[0]!.close();
    const page = Buffer.alloc(4096, 0x5a);
    for (let at = 0; at < MiB(32); at += 3 * 4096) vm.memory.write(BigInt(at), page);
    using snapshot = await vm.snapshot();
    const expected = vm.memory.read(0n, MiB(32));
    for (const beside of [false, true, false]) {
      let turned = false;
      const turn = setImmediate(() => {
        turned = true;
      });
      const machine = tracked(await snapshot.restore());
      clearImmediate(turn);
      // The first is mapped as it is; the second waits for the copy, which those after it have.
      if (beside) expect(turned).toBe(true);
      expect(machine.memory.read(0n, MiB(32)).equals(expected)).toBe(true);
      await machine.reset(snapshot);
      expect(machine.memory.read(0n, MiB(32)).equals(expected)).toBe(true);
    }
  });

  it('that cannot all be made: none is left, or each says why', async () => {
    const vm = await bootWriter(16);
    await vm.pause();
    await Promise.all((await vm.fork(2)).map((fork) => fork.close()));
    const files = openFiles();
    const signal = AbortSignal.abort();
    await expect(vm.fork({ count: 3, signal })).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect(vm.fork(-1)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    await expect(vm.fork(1.5)).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    expect(await vm.fork(0)).toEqual([]);
    const results = await vm.fork({ count: 2, settle: true });
    expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'fulfilled']);
    for (const result of results) if (result.status === 'fulfilled') await result.value.close();
    expect(openFiles()).toBeLessThanOrEqual(files);
    await vm.close();
    await expect(vm.fork()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });
});
