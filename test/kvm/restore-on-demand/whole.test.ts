/** What a machine whose pages are still to come does when all of them are needed. */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { TRACKERS } from '../../../lib/dirty/epoch.js';
import type { PagingOptions, Snapshot, Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { machineFor, whyNoTracker } from '../support/dirtier.js';
import { tracked, untilCounted, word } from '../support/machines.js';
import { bootWriter, writerFaults } from '../support/writer.js';
import { newStore, onDemand, sourceOf } from './saved.js';

const PAGES = 1500;

async function savedWriter(): Promise<Snapshot> {
  const vm = await bootWriter(PAGES);
  return vm.snapshot({ store: await newStore(), then: 'stop' });
}

async function running(snapshot: Snapshot, paging: PagingOptions): Promise<Vm> {
  const vm = await onDemand(snapshot, paging);
  await vm.start();
  return vm;
}

async function expectSound(vm: Vm): Promise<void> {
  await vm.resume();
  await untilCounted(vm, 2n, 'writer');
  await vm.pause();
  expect(writerFaults(vm, PAGES)).toEqual([]);
}

const SOURCES: Record<string, (snapshot: Snapshot) => Promise<PagingOptions>> = {
  file: async () => ({}),
  'slow JavaScript': async (snapshot) => ({ source: await sourceOf(snapshot, () => sleep(1)) }),
};

describe.each(Object.keys(SOURCES))('while pages still come from %s', (name) => {
  it('a snapshot has every page, and its machine goes on', async () => {
    const snapshot = await savedWriter();
    const vm = await running(snapshot, await SOURCES[name]!(snapshot));
    using full = await vm.snapshot({ store: snapshot.store });
    expect(vm.paging).toMatchObject({ active: false, pagesLeft: 0 });
    expect(vm.status).toBe('running');
    // The two need not share the processors.
    await vm.pause();
    const copy = tracked(await full.restore());
    expect(writerFaults(copy, PAGES)).toEqual([]);
    await expectSound(copy);
    await expectSound(vm);
    await snapshot.store.verify(full.digest);
  });

  it('forks and snapshots in memory have every page', async () => {
    const snapshot = await savedWriter();
    const vm = await running(snapshot, await SOURCES[name]!(snapshot));
    const [twin] = await vm.fork(1);
    tracked(twin!);
    expect(writerFaults(twin!, PAGES)).toEqual([]);
    using instant = await vm.snapshot();
    await expectSound(vm);
    await vm.reset(instant);
    await expectSound(vm);
    await expectSound(twin!);
  });

  it('an increment on what it was restored from is whole', async () => {
    const snapshot = await savedWriter();
    const vm = await running(snapshot, await SOURCES[name]!(snapshot));
    using next = await vm.snapshot({ store: snapshot.store, parent: snapshot, then: 'pause' });
    const copy = tracked(await next.restore());
    for (const { gpa, size } of vm.memory.slots()) {
      expect(copy.memory.read(gpa, size).equals(vm.memory.read(gpa, size))).toBe(true);
    }
    // From here on increments have what was written only.
    using last = await vm.snapshot({ store: snapshot.store, parent: next });
    expect(last.stats!.pages).toBe(0);
    await expectSound(copy);
  });

  it('a reset drops what was on its way', async () => {
    const snapshot = await savedWriter();
    const vm = await running(snapshot, await SOURCES[name]!(snapshot));
    await sleep(3);
    await vm.reset();
    expect(vm.status).toBe('paused');
    expect(vm.paging).toBeUndefined();
    const whole = tracked(await snapshot.restore());
    for (const { gpa, size } of vm.memory.slots()) {
      expect(vm.memory.read(gpa, size).equals(whole.memory.read(gpa, size))).toBe(true);
    }
    await expectSound(vm);
  });
});

it.for(TRACKERS)('tracking with %s brings in what is missing first', async (tracker, { skip }) => {
  const reason = whyNoTracker(tracker);
  if (reason) return skip(reason);
  const snapshot = await savedWriter();
  const vm = tracked(await snapshot.restore({ paging: {}, ...machineFor(tracker) }));
  await vm.start();
  let seen = 0;
  for await (const epoch of vm.dirty({ tracker, every: 5 })) {
    expect(vm.paging).toMatchObject({ active: false });
    seen += epoch.count;
    if (seen > 100) break;
  }
  await expectSound(vm);
});

it('a machine that has paged in everything is like any other', async () => {
  const snapshot = await savedWriter();
  const vm = await onDemand(snapshot);
  await vm.pageIn();
  expect(vm.paging).toMatchObject({ active: false, faults: 0, pagesLeft: 0 });
  await vm.memory.addSlot({ slot: 5, gpa: 0x40000000n, size: 4096 });
  await vm.memory.removeSlot(5);
  await expectSound(vm);
  expect(word(vm, GUEST_ABI.ERRORS)).toBe(0n);
  await vm.kill();
  await vm.reset();
  await expectSound(vm);
});
