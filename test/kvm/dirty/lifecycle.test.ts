/** The loop over vm.dirty(): how it starts, how it ends, what it leaves behind. */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { type DirtyEpoch, TRACKERS, type TrackerName, type Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { range } from '../support/bits.js';
import {
  begin,
  bootDirtier,
  DIRTY_BASE,
  expectNone,
  framesOf,
  harvester,
  machineFor,
  missed,
  requireTracker,
  whyNoTracker,
  write,
} from '../support/dirtier.js';
import { rounds } from '../support/host.js';
import { createVm, setWord, tracked, until, untilCounted } from '../support/machines.js';
import { copiesOf } from '../support/restored.js';
import { scratch } from '../support/scratch.js';
import { bootWriter } from '../support/writer.js';

const SMALL = { memory: 1 << 20, irqchip: false };
const refused = (code: string, message: RegExp) =>
  expect.objectContaining({ code, message: expect.stringMatching(message) });

describe.each(TRACKERS)('the loop with %s', (tracker) => {
  requireTracker(tracker);

  it('gives an epoch each time, and leaves the machine as it was', async () => {
    const vm = await bootDirtier(machineFor(tracker));
    const slots = vm.memory.slots();
    begin(vm, { pages: 2 ** 40, range: 50, journal: false });
    const writes = () => vm.memory.read(DIRTY_BASE, 8).readBigUInt64LE();
    const epochs: DirtyEpoch[] = [];
    const started = performance.now();
    for await (const epoch of vm.dirty({ tracker, every: 20 })) {
      epochs.push(epoch);
      if (epochs.length === 4) break;
      // On a slow host the guest may not come round within 20 ms.
      const before = writes();
      await until('the guest writes its first page again', () => writes() > before);
    }
    expect(performance.now() - started).toBeGreaterThan(75);
    for (const epoch of epochs.slice(1)) expectNone(missed([Number(DIRTY_BASE / 4096n)], epoch));
    for (const epoch of epochs) {
      expect(epoch.harvestUs).toBeGreaterThan(0);
      expect(epoch.lostUs).toBeGreaterThan(0);
    }
    expect(epochs.map(({ at }) => at)).toEqual(epochs.map(({ at }) => at).sort((a, b) => a - b));
    expect(vm.memory.slots()).toEqual(slots);
    expect(vm.status).toBe('running');
    // Nothing is left that would be in the way.
    const { next, stop } = await harvester(vm, tracker);
    await next();
    await stop();
  });

  it('goes on across snapshots: the machine freezes, nothing is lost', async () => {
    const vm = await bootDirtier(machineFor(tracker));
    const store = `${scratch()}/store`;
    const { next, stop } = await harvester(vm, tracker);
    for (let round = 1; round <= rounds(3); round++) {
      const before = await write(vm, { pages: 300, seed: round, range: 2000 });
      (await vm.snapshot({ store, durable: false })).close();
      const after = await write(vm, { pages: 300, seed: round + 9, range: 2000 });
      expectNone(missed([...before, ...after], await next()));
      const later = await write(vm, { pages: 50 });
      expectNone(missed(later, await next()));
    }
    await stop();
  });

  it('works on a machine with interrupt controllers', async () => {
    const vm = await bootDirtier({ ...machineFor(tracker), irqchip: true });
    const { next, stop } = await harvester(vm, tracker);
    expectNone(missed(await write(vm, { pages: 3000, seed: 5, range: 9000 }), await next()));
    await stop();
    // Tracking again begins from nothing.
    const { next: again, stop: stopAgain } = await harvester(vm, tracker);
    expectNone(missed(await write(vm, { pages: 10 }), await again()));
    await stopAgain();
  });

  it('ends when the machine is closed, at once', async () => {
    const vm = await bootDirtier(machineFor(tracker));
    begin(vm, { pages: 2 ** 40, range: 50, journal: false });
    let epochs = 0;
    for await (const _ of vm.dirty({ tracker, every: 1 })) {
      if (++epochs === 3) void vm.close();
    }
    expect(epochs).toBe(3);
    const other = await bootDirtier(machineFor(tracker));
    setTimeout(() => other.close(), 30);
    for await (const _ of other.dirty({ tracker, every: 3_600_000 })) epochs++;
    expect(other.status).toBe('closed');
  });
});

describe('the loop', () => {
  const first = (vm: Vm, tracker?: TrackerName) =>
    vm.dirty(tracker ? { tracker, every: 0 } : { every: 0 }).next();

  it('refuses what it cannot do, and says what to do instead', async () => {
    const vm = await createVm(SMALL);
    await expect(first(vm, 'ring')).rejects.toEqual(refused('ERR_STATE', /dirtyRing.*bitmap/));
    await expect(first(vm, 'softdirty' as TrackerName)).rejects.toEqual(
      refused('ERR_INVALID_ARGUMENT', /bitmap, bitmap-manual, ring/),
    );
    for (const every of [-1, Number.NaN, Number.POSITIVE_INFINITY, '5' as unknown as number]) {
      await expect(vm.dirty({ every }).next()).rejects.toMatchObject({
        code: 'ERR_INVALID_ARGUMENT',
      });
    }
    await vm.memory.setSlotFlags(0, { logDirtyPages: true });
    await expect(first(vm)).rejects.toEqual(refused('ERR_STATE', /logs dirty pages already/));
    await vm.memory.setSlotFlags(0, {});
    expect((await first(vm)).done).toBe(false);
  });

  it.each(TRACKERS.filter(whyNoTracker))(
    'with %s, which the kernel lacks, is refused',
    async (tracker) => {
      const vm = await createVm(SMALL);
      await expect(first(vm, tracker)).rejects.toEqual(refused('ERR_SYSTEM', /Linux 6\..*bitmap/));
      expect((await first(vm)).done).toBe(false);
    },
  );

  it('takes rings of sizes that KVM takes', async () => {
    for (const dirtyRing of [0, -1, 1.5, 1000, 128, 1 << 20, 2 ** 31]) {
      await expect(createVm({ ...SMALL, dirtyRing })).rejects.toMatchObject({
        code: 'ERR_INVALID_ARGUMENT',
      });
    }
    await expect(
      createVm({ ...SMALL, dirtyRing: 1024, manualDirtyLog: true }),
    ).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
  });

  it('with a ring takes the place of dirty logs', async () => {
    const vm = await createVm({ ...SMALL, dirtyRing: 1024 });
    for (const tracker of ['bitmap', 'bitmap-manual'] as const) {
      await expect(first(vm, tracker)).rejects.toEqual(refused('ERR_STATE', /track with `ring`/));
    }
    await expect(vm.memory.getDirtyLog(0)).rejects.toEqual(refused('ERR_STATE', /dirty ring/));
  });

  it('is one at a time, and slots stay as they are meanwhile', async () => {
    const vm = await createVm(SMALL);
    const loop = vm.dirty({ every: 0 });
    await loop.next();
    for (const tracker of TRACKERS) {
      await expect(first(vm, tracker)).rejects.toMatchObject({ code: 'ERR_STATE' });
    }
    const slot = { slot: 5, gpa: 0x10000000n, size: 4096 };
    await expect(vm.memory.addSlot(slot)).rejects.toMatchObject({ code: 'ERR_STATE' });
    await expect(vm.memory.removeSlot(0)).rejects.toMatchObject({ code: 'ERR_STATE' });
    await expect(vm.memory.setSlotFlags(0, {})).rejects.toMatchObject({ code: 'ERR_STATE' });
    await expect(vm.memory.getDirtyLog(0)).rejects.toMatchObject({ code: 'ERR_STATE' });
    // The one that is at work is not disturbed by all that.
    vm.memory.write(0x5000n, Buffer.from('x'));
    expect([...framesOf((await loop.next()).value as DirtyEpoch)]).toEqual([5]);
    await loop.return();
    await vm.memory.addSlot(slot);
  });

  it('with manual protection leaves the machine’s own way as it was', async () => {
    for (const manualDirtyLog of [false, true]) {
      const vm = await createVm({ ...SMALL, manualDirtyLog });
      for (const tracker of ['bitmap', 'bitmap-manual'] as const) {
        const { next, stop } = await harvester(vm, tracker);
        vm.memory.write(0x5000n, Buffer.from('x'));
        expect([...framesOf(await next())]).toEqual([5]);
        expect([...framesOf(await next())]).toEqual([]);
        await stop();
      }
      await vm.memory.setSlotFlags(0, { logDirtyPages: true });
      vm.memory.write(0x5000n, Buffer.from('x'));
      await vm.memory.getDirtyLog(0);
      expect((await vm.memory.getDirtyLog(0)).count).toBe(manualDirtyLog ? 1 : 0);
    }
  });

  it('ends with ERR_ABORTED when its signal fires', async () => {
    const vm = await createVm(SMALL);
    const aborting = new AbortController();
    setTimeout(() => aborting.abort(), 20);
    const loop = vm.dirty({ every: 3_600_000, signal: aborting.signal });
    await expect(loop.next()).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect(vm.dirty({ signal: AbortSignal.abort() }).next()).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
    expect((await first(vm)).done).toBe(false);
  });

  it('has a last epoch when the guest ends by itself', async () => {
    const pages = 20;
    const vm = await bootWriter(pages);
    const epochs: DirtyEpoch[] = [];
    const loop = (async () => {
      for await (const epoch of vm.dirty({ every: 3_600_000 })) epochs.push(epoch);
    })();
    await sleep(50);
    await untilCounted(vm, 2n, 'writer');
    setWord(vm, GUEST_ABI.COMMAND, GUEST_ABI.COMMAND_EXIT, 'writer');
    expect(await vm.wait()).toMatchObject({ reason: 'exit-port', code: GUEST_ABI.EXIT_OK });
    await loop;
    expect(epochs).toHaveLength(1);
    const first = Number(GUEST_ABI.PAGES / 4096n);
    expectNone(missed(range(first, pages), ...epochs));
  });

  it('of a machine that is killed ends with ERR_POISONED', async () => {
    const vm = await bootDirtier();
    const loop = vm.dirty({ every: 0 });
    await loop.next();
    await vm.kill();
    await expect(loop.next()).rejects.toMatchObject({ code: 'ERR_POISONED' });
    await vm.close();
  });

  it('works on a machine that was restored, whose memory is copy-on-write', async () => {
    const origin = await bootDirtier();
    await write(origin, { pages: 100 });
    for (const tracker of TRACKERS.filter((name) => !whyNoTracker(name))) {
      const [vm] = tracker === 'ring' ? [] : await copiesOf(origin, 1, 'resume');
      if (!vm) continue;
      if (tracker === 'uffd-wp') {
        // Depends on the file system of the store.
        const code = await first(vm, tracker).then(
          () => undefined,
          (error) => error.code,
        );
        expect([undefined, 'ERR_SYSTEM']).toContain(code);
        continue;
      }
      await vm.resume();
      const { next, stop } = await harvester(vm, tracker);
      expectNone(missed(await write(vm, { pages: 500 }), await next()));
      await stop();
    }
  });

  it('restores with a ring', async () => {
    const origin = await bootDirtier();
    const store = `${scratch()}/store`;
    using snapshot = await origin.snapshot({ store, durable: false });
    const vm = tracked(await snapshot.restore({ dirtyRing: 1024 }));
    await vm.resume();
    const { next, stop } = await harvester(vm, 'ring');
    expectNone(missed(await write(vm, { pages: 3000 }), await next()));
    await stop();
  });
});

describe('a dirty ring', () => {
  it('of the smallest size is drained whenever it is full, by both vCPUs', async () => {
    const vm = await bootDirtier({ dirtyRing: 1024, vcpus: 2 });
    const { next, stop } = await harvester(vm, 'ring');
    const second = { vcpu: 1, base: DIRTY_BASE + 0x3000000n };
    for (let round = 1; round <= 5; round++) {
      const [a, b] = await Promise.all([
        write(vm, { pages: 8000, seed: round, range: 9000 }),
        write(vm, { pages: 8000, ...second }),
      ]);
      expectNone(missed([...a, ...b], await next()));
    }
    await stop();
  });

  it('that nobody reads does not stop the guest', async () => {
    const vm = await bootDirtier({ dirtyRing: 1024 });
    await vm.pause();
    await vm.memory.setSlotFlags(0, { logDirtyPages: true });
    await vm.resume();
    const written = await write(vm, { pages: 10_000 });
    expect(written).toHaveLength(10_000);
  });
});
