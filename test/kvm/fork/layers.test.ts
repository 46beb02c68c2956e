/** A machine that is frozen again and again: its layers do not pile up. */
import { readdirSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { MemorySnapshot, Vm } from '../../../lib/index.js';
import { SnapshotStore } from '../../../lib/index.js';
import { MiB } from '../../../lib/units.js';
import { HANG_MS, rounds } from '../support/host.js';
import { createVm, tracked, untilCounted } from '../support/machines.js';
import { scratch } from '../support/scratch.js';
import { bootWriter, cursorOf, writerFaults } from '../support/writer.js';

const PAGE = 4096;
/** Layers that are left alone, as native/memory/region.cc has it, and those that come meanwhile. */
const MOST_FILES = 64 + 40;

/** Memory files of all machines and snapshots of this process. */
const memoryFiles = (): number =>
  readdirSync('/proc/self/fd').filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith('/memfd:kvmsnap-');
    } catch {
      // Closed since.
      return false;
    }
  }).length;

/** Freezes it, without writes, until its layers are few: flattening begins with a freeze. */
async function expectFewFiles(vm: Vm): Promise<void> {
  const deadline = performance.now() + HANG_MS;
  while (memoryFiles() > MOST_FILES) {
    expect(performance.now()).toBeLessThan(deadline);
    (await vm.snapshot()).close();
    await sleep(10);
  }
}

/** All of guest memory. */
const all = (vm: Vm): Buffer =>
  Buffer.concat(vm.memory.slots().map(({ gpa, size }) => vm.memory.read(gpa, size)));

describe('a machine that is frozen hundreds of times', () => {
  it('writes meanwhile: every fork is of its instant, and its files stay few', async () => {
    const PAGES = 300;
    const vm = await bootWriter(PAGES);
    const kept: { snapshot: MemorySnapshot; cursor: bigint }[] = [];
    for (let round = 1; round <= rounds(500); round++) {
      const snapshot = await vm.snapshot();
      if (round % 50 !== 1) {
        snapshot.close();
        continue;
      }
      const [fork] = await snapshot.fork(1);
      expect(writerFaults(fork!, PAGES)).toEqual([]);
      kept.push({ snapshot, cursor: cursorOf(fork!) });
      await fork!.close();
    }
    // Those of long ago are what they were.
    for (const { snapshot, cursor } of kept) {
      const [fork] = await snapshot.fork(1);
      expect(writerFaults(fork!, PAGES)).toEqual([]);
      expect(cursorOf(fork!)).toBe(cursor);
      await fork!.resume();
      await untilCounted(fork!, 1n, 'writer');
      await fork!.close();
      snapshot.close();
    }
    await expectFewFiles(vm);
    await vm.pause();
    expect(writerFaults(vm, PAGES)).toEqual([]);
    // One more freeze hands out an image that is as flat as the machine's.
    using last = await vm.snapshot();
    await vm.close();
    const [fork] = await last.fork(1);
    expect(writerFaults(fork!, PAGES)).toEqual([]);
  });

  it('here and there: forks, resets and increments find its memory as it was', async () => {
    const store = await SnapshotStore.open(`${scratch()}/store`, { create: true, durable: false });
    const vm = await createVm({ memory: MiB(16), irqchip: false });
    const total = MiB(16) / PAGE;
    const put = (page: number, byte: number) =>
      vm.memory.write(BigInt(page * PAGE), Buffer.alloc(PAGE, byte));
    for (let page = 0; page < total; page += 3) put(page, 0x77);
    using base = await vm.snapshot({ store });
    let parent = base;
    for (let round = 1; round <= 400; round++) {
      for (let i = 0; i < 10; i++) put((round * 7919 + i * 1009) % total, round & 0xff);
      using snapshot = await vm.snapshot();
      if (round % 100 !== 0) continue;
      const now = all(vm);
      const [fork] = await snapshot.fork(1);
      expect(all(tracked(fork!)).equals(now)).toBe(true);
      put(5, 0xfe);
      await vm.reset(snapshot);
      expect(all(vm).equals(now)).toBe(true);
      // What was copied together since the parent is told from what was written since.
      put(9, round & 0x7f);
      const next = await vm.snapshot({ store, parent });
      expect(next.stats!.pages).toBeLessThanOrEqual(100 * 10 + 2);
      parent = next;
      put(11, round & 0x7f);
      using one = await vm.snapshot({ store, parent });
      expect(one.stats!.pages).toBe(1);
      const copy = tracked(await one.restore());
      expect(all(copy).equals(all(vm))).toBe(true);
      await copy.close();
      await fork!.close();
      snapshot.close();
      await expectFewFiles(vm);
    }
  });
});
