import { describe, expect, it } from 'vitest';
import { SnapshotStore } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { rounds } from '../support/host.js';
import { firstBreak, Sent } from '../support/lines.js';
import { bootGuest, count, setWord, tracked, untilCounted, word } from '../support/machines.js';
import { bootRing3Smp, line, untilAllCount } from '../support/multi.js';
import { scratch } from '../support/scratch.js';
import { bootWriter, salts, writerFaults } from '../support/writer.js';

const newStore = () => SnapshotStore.open(`${scratch()}/store`, { create: true, durable: false });

describe('a snapshot of a running machine is its memory of one instant', () => {
  it('writer: 200 freezes, each whole, while the machine runs on', async () => {
    const pages = 48;
    const store = await newStore();
    const vm = await bootWriter(pages);
    let cursor = 0n;
    for (let round = 0; round < rounds(200); round++) {
      using snapshot = await vm.snapshot({ store });
      expect(vm.status).toBe('running');
      const copy = await snapshot.restore();
      expect(writerFaults(copy, pages)).toEqual([]);
      // Later than the one before it: the machine did not go back or stand still.
      const now = word(copy, GUEST_ABI.CURSOR);
      expect(now).toBeGreaterThan(cursor);
      cursor = now;
      await copy.close();
      if (round % 10 === 9) {
        await vm.pause();
        expect(writerFaults(vm, pages)).toEqual([]);
        await vm.resume();
      }
      await store.delete(snapshot.digest);
      if (round % 20 === 19) await store.gc();
    }
    await untilCounted(vm, 2n, 'writer');
    expect(word(vm, GUEST_ABI.ERRORS)).toBe(0n);
  });

  it('writer with 2000 pages: remapping and what is too scattered to be remapped', async () => {
    const pages = 2000;
    const store = await newStore();
    const vm = await bootWriter(pages);
    for (let round = 0; round < rounds(12); round++) {
      using snapshot = await vm.snapshot({ store });
      const copy = await snapshot.restore();
      expect(writerFaults(copy, pages)).toEqual([]);
      await copy.close();
    }
    await untilCounted(vm, 2n, 'writer');
  });

  it('parent and copies go their own ways: no page of one shows in another', async () => {
    const pages = 64;
    const store = await newStore();
    const vm = await bootWriter(pages);
    for (let round = 1; round <= rounds(15); round++) {
      using snapshot = await vm.snapshot({ store });
      const copies = [tracked(await snapshot.restore()), tracked(await snapshot.restore())];
      const machines = [vm, ...copies];
      machines.forEach((machine, i) => {
        setWord(machine, GUEST_ABI.SALT, 1000n * BigInt(round) + BigInt(i));
      });
      for (const copy of copies) await copy.resume();
      for (const machine of machines) await untilCounted(machine, 3n, 'writer');
      for (const [i, machine] of machines.entries()) {
        await machine.pause();
        expect(writerFaults(machine, pages)).toEqual([]);
        expect(salts(machine, pages)).toEqual(new Set([1000n * BigInt(round) + BigInt(i)]));
      }
      // The snapshot is as it was, whatever they wrote.
      const late = await snapshot.restore();
      expect(writerFaults(late, pages)).toEqual([]);
      expect([...salts(late, pages)].every((salt) => salt / 1000n < BigInt(round))).toBe(true);
      await late.close();
      for (const copy of copies) await copy.close();
      await vm.resume();
    }
  });

  it('several vCPUs: 60 freezes, each with a sum that fits its parts', async () => {
    const store = await newStore();
    const vm = await bootRing3Smp(3);
    for (let round = 0; round < rounds(60); round++) {
      using snapshot = await vm.snapshot({ store });
      const copy = await snapshot.restore();
      const sum = copy.vcpus.reduce((total, { index }) => total + line(copy, index), 0n);
      const counted = count(copy);
      // Each vCPU may stand between its own count and the common one.
      expect(sum - counted).toBeGreaterThanOrEqual(0n);
      expect(sum - counted).toBeLessThanOrEqual(3n);
      if (round % 10 === 0) {
        await copy.resume();
        await untilAllCount(copy);
      }
      await copy.close();
    }
    await untilAllCount(vm);
  });
});

describe('what a guest sends', () => {
  it('by the machine and by its copy joins without a gap: 60 snapshots', async () => {
    const store = await newStore();
    const vm = await bootGuest('counter', { regs: { rsi: 2000n } });
    const sent = new Sent(vm);
    await sent.lines(3);
    for (let round = 0; round < rounds(60); round++) {
      using snapshot = await vm.snapshot({ store, then: 'pause' });
      await sent.settle();
      const copy = tracked(await snapshot.restore());
      const rest = new Sent(copy);
      await copy.resume();
      await rest.lines(3);
      await copy.close();
      expect(firstBreak(sent.text + rest.text)).toBeUndefined();
      await vm.resume();
      await sent.lines(1);
      expect(firstBreak(sent.text)).toBeUndefined();
    }
  });
});

describe('snapshots of restored machines', () => {
  it('go on and on: 12 generations', async () => {
    const pages = 64;
    const store = await newStore();
    let vm = await bootWriter(pages);
    for (let generation = 0; generation < 12; generation++) {
      using snapshot = await vm.snapshot({ store, then: generation % 2 ? 'stop' : 'resume' });
      expect(vm.status).toBe(generation % 2 ? 'closed' : 'running');
      const next = tracked(await snapshot.restore());
      expect(writerFaults(next, pages)).toEqual([]);
      await vm.close();
      vm = next;
      await vm.resume();
      await untilCounted(vm, 2n, 'writer');
    }
  });
});
