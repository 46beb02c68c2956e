import { describe, expect, it } from 'vitest';
import { type PageRun, Snapshot, type Vm, type WorkingSet } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { MiB } from '../../../lib/units.js';
import { createGuest, tracked, until, word } from '../support/machines.js';
import { newStore, onDemand, savedPattern, sourceOf, verified } from './saved.js';

const PAGES = 300;
const FIRST = GUEST_ABI.PAGES;

/** A machine about to write the first word of some pages, all of which have content. */
async function savedToucher(): Promise<Snapshot> {
  const vm = await createGuest('touch', { regs: { r15: BigInt(PAGES) } });
  vm.memory.write(FIRST, Buffer.alloc(2 * PAGES * 4096, 0x77));
  return vm.snapshot({ store: await newStore(), tag: 'cold', then: 'stop' });
}

async function onePass(vm: Vm): Promise<void> {
  let passes = 0;
  while (passes === 0) {
    const exit = await vm.vcpus[0]!.run();
    if (exit.kind === 'io' && exit.port === GUEST_ABI.PORT_PASS) passes++;
  }
}

const pagesOf = (runs: WorkingSet): bigint[] =>
  runs.flatMap(({ gpa, count }) => Array.from({ length: count }, (_, i) => gpa + BigInt(i * 4096)));

describe('a working set', () => {
  it('is what the guest touched, in that order', async () => {
    const snapshot = await savedToucher();
    const vm = await onDemand(snapshot, { record: true });
    expect(vm.workingSet()).toEqual([]);
    await onePass(vm);
    const pages = pagesOf(vm.workingSet());
    // Its code and tables before, wherever they lie; then one page after the other, and no other.
    const touched = pages.filter((gpa) => gpa >= FIRST);
    expect(touched).toEqual(Array.from({ length: PAGES }, (_, i) => FIRST + BigInt(i * 4096)));
    expect(pages.indexOf(FIRST)).toBeGreaterThan(0);
    expect(vm.paging!.faultedPages).toBe(pages.length);
    // A second pass touches nothing for the first time, nor does the host.
    await onePass(vm);
    vm.memory.read(FIRST + BigInt(400 * 4096), 4096);
    expect(pagesOf(vm.workingSet())).toEqual(pages);
    await vm.close();
    expect(pagesOf(vm.workingSet())).toEqual(pages);
  });

  it('goes into a snapshot of its own, and is fetched first from there', async () => {
    const snapshot = await savedToucher();
    const { store } = snapshot;
    const cold = await onDemand(snapshot, { record: true });
    await onePass(cold);
    const recorded = cold.workingSet();
    const { faults } = cold.paging!;
    expect(faults).toBeGreaterThan(PAGES);
    expect(await snapshot.workingSet()).toBeUndefined();

    using warm = await snapshot.addWorkingSet(recorded, { tag: 'warm' });
    expect(warm.digest).not.toBe(snapshot.digest);
    expect(await warm.workingSet()).toEqual(recorded);
    expect(await store.tags()).toEqual(['cold', 'warm']);
    const before = await store.verify('cold');
    const after = await store.verify('warm');
    expect(after.blobs).toBe(before.blobs + 1);
    expect(after.chunks).toBe(before.chunks);
    const entries = await store.list();
    expect(
      entries.map((entry) => [entry.tag, 'summary' in entry && entry.summary.workingSet]),
    ).toEqual([
      ['cold', false],
      ['warm', true],
    ]);

    // What the old one had stays when that is gone.
    await store.delete('cold');
    await store.gc({ graceMs: -1000 });
    using opened = await Snapshot.open(store, 'warm');
    for (const source of ['file', await sourceOf(opened)] as const) {
      const vm = await onDemand(opened, { prefetch: true, source });
      const pages = pagesOf(recorded).length;
      await until('it is fetched', () => vm.paging!.prefetchedPages === pages);
      await onePass(vm);
      // Not one touch of those has to wait.
      expect(vm.paging).toMatchObject({ faults: 0, prefetchedPages: pages });
      if (source === 'file') continue;
      const asked = source.asked.slice(0, recorded.length).map(({ gpa }) => gpa);
      expect(asked).toEqual(recorded.map(({ gpa }) => gpa));
      // Few, large reads.
      expect(source.asked.length).toBeLessThan(recorded.length + 5);
    }
    // A snapshot that is made full again keeps it; an increment on it has none.
    using flat = await opened.flatten({ tag: 'flat' });
    expect(await flat.workingSet()).toEqual(recorded);
    const vm = tracked(await opened.restore());
    using next = await vm.snapshot({ store, parent: opened });
    expect(await next.workingSet()).toBeUndefined();
    using again = await vm.snapshot({ store, workingSet: recorded });
    expect(await again.workingSet()).toEqual(recorded);
    // Replaced, not added to.
    using other = await again.addWorkingSet([{ gpa: FIRST, count: 1 }]);
    expect(await other.workingSet()).toEqual([{ gpa: FIRST, count: 1 }]);
    expect((await store.verify(other.digest)).blobs).toBe(after.blobs);
  });

  it('may be given, and need not be of pages that have content', async () => {
    const snapshot = await savedToucher();
    const given: PageRun[] = [
      { gpa: FIRST + BigInt(100 * 4096), count: 5 },
      { gpa: BigInt(MiB(15)), count: 256 },
      { gpa: FIRST, count: 3 },
    ];
    const vm = await onDemand(snapshot, { prefetch: given });
    await until('it is fetched', () => vm.paging!.prefetchedPages >= 8);
    await onePass(vm);
    expect(vm.paging!.faults).toBeGreaterThan(0);
  });

  it('is refused when it is of another machine, and nothing is written', async () => {
    const snapshot = await savedToucher();
    const { store } = snapshot;
    for (const runs of [
      [{ gpa: BigInt(MiB(16)), count: 1 }],
      [{ gpa: 0n, count: 0 }],
      [
        { gpa: 0n, count: 2 },
        { gpa: 4096n, count: 1 },
      ],
      [{ gpa: 5n, count: 1 }],
      'all',
    ]) {
      const wrong = runs as never;
      const refused = { code: 'ERR_INVALID_ARGUMENT' };
      await expect(snapshot.addWorkingSet(wrong)).rejects.toMatchObject(refused);
      const vm = tracked(await snapshot.restore());
      await expect(vm.snapshot({ store, workingSet: wrong })).rejects.toMatchObject(refused);
    }
    expect(await store.tags()).toEqual(['cold']);
    await expect(snapshot.addWorkingSet([], { tag: 'no tag' })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
    });
  });
});

it('a prefetch beside a running guest leaves every page as it was', async () => {
  const snapshot = await savedPattern({ memory: MiB(64) });
  const everything = [{ gpa: 0n, count: MiB(64) / 4096 }];
  for (const source of ['file', await sourceOf(snapshot)] as const) {
    const vm = await onDemand(snapshot, { source, prefetch: everything });
    await verified(vm);
    expect(word(vm, GUEST_ABI.ERRORS)).toBe(0n);
    await until('all is there', () => !vm.paging!.active);
    const { prefetchedPages, faultedPages, fetchedPages } = vm.paging!;
    expect(prefetchedPages).toBeGreaterThan(faultedPages + fetchedPages);
    expect(vm.status).toBe('running');
  }
});
