/** Every tracker against what the guest itself wrote down. */
import { describe, expect, it } from 'vitest';
import { TRACKERS } from '../../../lib/index.js';
import { GiB, MiB } from '../../../lib/units.js';
import {
  begin,
  bootDirtier,
  DIRTY_BASE,
  expectNone,
  framesOf,
  harvester,
  interrupt,
  journal,
  machineFor,
  missed,
  requireTracker,
  write,
} from '../support/dirtier.js';
import { rounds } from '../support/host.js';

const HIGH = 0x100000000n;
const RANGE = 24_000;

describe.each(TRACKERS)('the tracker %s', (tracker) => {
  requireTracker(tracker);

  it('misses no page, in order and at random, 1 to 20000 in an epoch', async () => {
    const vm = await bootDirtier(machineFor(tracker));
    const { next, stop } = await harvester(vm, tracker);
    for (const pages of [1, 2, 63, 64, 65, 1000, 20_000]) {
      for (const seed of [0, 0x9e3779b9]) {
        const written = await write(vm, { pages, seed, range: seed === 0 ? pages : RANGE });
        const epoch = await next();
        expectNone(missed(written, epoch));
        expect(epoch.count).toBe(framesOf(epoch).size);
        expect(epoch.pages.reduce((sum, { count }) => sum + count, 0)).toBe(epoch.count);
      }
    }
    await stop();
  });

  it('names a page again in every epoch in which it is written, and in no other', async () => {
    const vm = await bootDirtier(machineFor(tracker));
    const { next, stop } = await harvester(vm, tracker);
    for (let round = 0; round < 5; round++) {
      const written = await write(vm, { pages: 100 });
      expectNone(missed(written, await next()));
      const quiet = framesOf(await next());
      expect(written.filter((frame) => quiet.has(frame))).toEqual([]);
    }
    await stop();
  });

  it('loses nothing between two harvests of a guest that writes all the time', async () => {
    const vm = await bootDirtier(machineFor(tracker));
    const { next, stop } = await harvester(vm, tracker);
    for (let round = 0; round < rounds(10); round++) {
      begin(vm, { pages: 30_000, seed: round + 1, range: RANGE });
      // What the journal gains from one look to the next was written after the first look, and is in
      // one of the two harvests since. Only the write that was under way at the look may be older, as
      // old as the look at which the guest last had gone on.
      let epochs = [await next(), await next()];
      let seen = 0;
      const check = async (older: number): Promise<void> => {
        const known = journal(vm);
        epochs.push(await next());
        expectNone(missed(known.slice(seen, seen + older), ...epochs));
        expectNone(missed(known.slice(seen + older), ...epochs.slice(-2)));
        if (known.length > seen) epochs = epochs.slice(-2);
        seen = known.length;
      };
      // What was written before the first two of these.
      await check(Number.POSITIVE_INFINITY);
      for (let harvest = 0; harvest < 8; harvest++) await check(1);
      await interrupt(vm);
      await check(1);
    }
    await stop();
  });

  it('sees both vCPUs', async () => {
    const vm = await bootDirtier({ ...machineFor(tracker), vcpus: 2 });
    const { next, stop } = await harvester(vm, tracker);
    const second = DIRTY_BASE + BigInt(MiB(48));
    for (let round = 1; round <= rounds(10); round++) {
      const [a, b] = await Promise.all([
        write(vm, { pages: 3000, seed: round, range: 8000 }),
        write(vm, { pages: 3000, seed: round + 7, range: 8000, base: second, vcpu: 1 }),
      ]);
      expectNone(missed([...a, ...b], await next()));
    }
    await stop();
  });

  it('sees memory above the 32-bit hole', async () => {
    const vm = await bootDirtier({ ...machineFor(tracker), memory: GiB(3) + MiB(64) });
    const { next, stop } = await harvester(vm, tracker);
    for (const base of [DIRTY_BASE, HIGH, HIGH + BigInt(MiB(64)) - 4096n * 500n]) {
      const written = await write(vm, { pages: 500, base });
      const epoch = await next();
      expectNone(missed(written, epoch));
      expect(epoch.slots.map(({ gpa }) => gpa)).toEqual([0n, HIGH]);
      // Nothing in the slot that was not written but for the guest's own line and journal.
      const others = base === DIRTY_BASE ? 1 : 0;
      expect(epoch.slots[others]!.count).toBeLessThan(20);
    }
    await stop();
  });

  it('has what the VMM wrote, running or paused', async () => {
    const vm = await bootDirtier(machineFor(tracker));
    const { next, stop } = await harvester(vm, tracker);
    for (const paused of [false, true]) {
      if (paused) await vm.pause();
      await next();
      vm.memory.write(0x3000000n, Buffer.alloc(3 * 4096, 1));
      vm.memory.write(0x3800fffn, Buffer.from('ab'));
      const epoch = await next();
      expectNone(missed([0x3000, 0x3001, 0x3002, 0x3800, 0x3801], epoch));
      const quiet = framesOf(await next());
      expect([0x3000, 0x3001, 0x3002, 0x3800].filter((frame) => quiet.has(frame))).toEqual([]);
    }
    await stop();
  });

  it('starts and stops while the guest writes, 100 times', async () => {
    const vm = await bootDirtier(machineFor(tracker));
    begin(vm, { pages: 2 ** 40, range: 200, journal: false });
    const counters = () =>
      Array.from({ length: 200 }, (_, page) =>
        vm.memory.read(DIRTY_BASE + BigInt(page * 4096), 8).readBigUInt64LE(),
      );
    let changes = 0;
    for (let round = 0; round < rounds(100); round++) {
      const { next, stop } = await harvester(vm, tracker);
      const before = counters();
      await new Promise((resolve) => setTimeout(resolve, 1));
      const after = counters();
      const changed = [...before.keys()].filter((page) => before[page] !== after[page]);
      const first = Number(DIRTY_BASE / 4096n);
      expectNone(
        missed(
          changed.map((page) => first + page),
          await next(),
        ),
      );
      changes += changed.length;
      await stop();
    }
    expect(changes).toBeGreaterThan(200);
    expect(vm.status).toBe('running');
  });
});
