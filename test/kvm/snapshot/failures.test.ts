import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { SnapshotStore, type Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { MiB } from '../../../lib/units.js';
import { canMount, mountTmpfs, remount } from '../support/filesystems.js';
import { bootGuest, tracked, untilCounted, word } from '../support/machines.js';
import { scratch } from '../support/scratch.js';
import { contents, leftovers } from '../support/stores.js';
import { bootWriter, writerFaults } from '../support/writer.js';

const PAGES = 3000;

/** The machine is sound after a save that failed: it runs, and its next snapshot is whole. */
async function expectSound(vm: Vm, store: SnapshotStore, pages = PAGES): Promise<void> {
  expect(vm.status).toBe('running');
  await untilCounted(vm, 2n, 'writer');
  expect(word(vm, GUEST_ABI.ERRORS)).toBe(0n);
  using snapshot = await vm.snapshot({ store });
  const copy = tracked(await snapshot.restore());
  expect(writerFaults(copy, pages)).toEqual([]);
  await copy.close();
  await store.delete(snapshot.digest);
  await store.gc();
}

const newStore = () => SnapshotStore.open(`${scratch()}/store`, { create: true, durable: false });

describe('an AbortSignal', () => {
  it('that has fired leaves everything as it was', async () => {
    const store = await newStore();
    const vm = await bootWriter(PAGES);
    const before = contents(store.path);
    const reason = new Error('changed my mind');
    await expect(vm.snapshot({ store, signal: AbortSignal.abort(reason) })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
      cause: reason,
    });
    expect(contents(store.path)).toEqual(before);
    await expectSound(vm, store);
  });

  it('that fires at any moment: a snapshot is whole or absent, the machine sound', async () => {
    const store = await newStore();
    const vm = await bootWriter(PAGES);
    // How long one takes here, so that the moments spread over all of it.
    const begun = performance.now();
    (await vm.snapshot({ store, tag: 'first' })).close();
    const whole = performance.now() - begun;
    const outcomes = { aborted: 0, committed: 0 };
    const rounds = 40;
    for (let round = 0; round < rounds; round++) {
      const controller = new AbortController();
      const timer = sleep((whole * 1.2 * round) / rounds).then(() => controller.abort());
      const tag = `round${round}`;
      try {
        (await vm.snapshot({ store, tag, signal: controller.signal })).close();
        outcomes.committed++;
        expect(await store.tags()).toContain(tag);
        await store.verify(tag);
        await store.delete(tag);
      } catch (error) {
        expect(error).toMatchObject({ code: 'ERR_ABORTED' });
        outcomes.aborted++;
        expect(await store.tags()).toEqual(['first']);
      }
      await timer;
      expect(leftovers(store.path)).toEqual([]);
      expect(vm.status).toBe('running');
    }
    expect(outcomes.aborted).toBeGreaterThan(0);
    await expectSound(vm, store);
  });

  it('that fires in the progress of the write', async () => {
    const store = await newStore();
    const vm = await bootWriter(PAGES);
    const before = contents(store.path);
    const controller = new AbortController();
    await expect(
      vm.snapshot({ store, signal: controller.signal, onProgress: () => controller.abort() }),
    ).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(contents(store.path)).toEqual(before);
    await expectSound(vm, store);
  });

  it('aborts a restore', async () => {
    const store = await newStore();
    const vm = await bootGuest('counter');
    using snapshot = await vm.snapshot({ store });
    await expect(snapshot.restore({ signal: AbortSignal.abort() })).rejects.toMatchObject({
      code: 'ERR_ABORTED',
    });
    const controller = new AbortController();
    const restoring = snapshot.restore({ signal: controller.signal });
    controller.abort();
    await expect(restoring).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });
});

describe('close and kill during a save', () => {
  it('the save ends, well or with a code, and the store is whole: 40 machines', async () => {
    const store = await newStore();
    for (let round = 0; round < 40; round++) {
      const vm = await bootGuest('counter', { regs: { rsi: 64n } });
      const tag = `r${round}`;
      const saving = vm.snapshot({ store, tag }).then(
        (snapshot) => snapshot.close(),
        (error) => error.code,
      );
      await sleep(round % 8);
      await (round % 2 ? vm.close() : vm.kill());
      const code = await saving;
      if (code !== undefined) expect(['ERR_CLOSED', 'ERR_POISONED']).toContain(code);
      expect((await store.tags()).includes(tag)).toBe(code === undefined);
      expect(leftovers(store.path)).toEqual([]);
    }
    for (const tag of await store.tags()) await store.verify(tag);
  });
});

const mountable = canMount();
if (!mountable) console.warn('SKIPPED: full and read-only file systems: mounting needs root');

describe.skipIf(!mountable)('a file system', () => {
  it('that is full: the store is as before, the machine runs on', async () => {
    const path = `${mountTmpfs(MiB(6))}/store`;
    const store = await SnapshotStore.open(path, { create: true, durable: false });
    const vm = await bootWriter(PAGES);
    const before = contents(path);
    for (let round = 0; round < 5; round++) {
      await expect(vm.snapshot({ store, tag: 'full' })).rejects.toMatchObject({
        code: 'ERR_STORE',
        errno: 28,
        message: expect.stringMatching(/space/),
      });
      expect(contents(path)).toEqual(before);
      await untilCounted(vm, 1n, 'writer');
    }
    // Elsewhere there is room.
    await expectSound(vm, await newStore());
  });

  it.each(['pause', 'stop'] as const)(
    'that is full: with then: %s the machine is paused, not closed',
    async (then) => {
      const path = `${mountTmpfs(MiB(6))}/store`;
      const store = await SnapshotStore.open(path, { create: true, durable: false });
      const vm = await bootWriter(PAGES);
      await expect(vm.snapshot({ store, then })).rejects.toMatchObject({ code: 'ERR_STORE' });
      expect(vm.status).toBe('paused');
      await vm.resume();
      await expectSound(vm, await newStore());
    },
  );

  it('that is read-only costs the guest nothing: it is not even paused', async () => {
    const mountPoint = mountTmpfs(MiB(64));
    const path = `${mountPoint}/store`;
    const store = await SnapshotStore.open(path, { create: true, durable: false });
    const vm = await bootWriter(PAGES);
    const before = contents(path);
    remount(mountPoint, 'ro');
    await expect(vm.snapshot({ store })).rejects.toMatchObject({ code: 'ERR_STORE', errno: 30 });
    await expect(vm.snapshot({ store: `${mountPoint}/other` })).rejects.toMatchObject({
      code: 'ERR_STORE',
    });
    expect(contents(path)).toEqual(before);
    expect(vm.status).toBe('running');
    remount(mountPoint, 'rw');
    await expectSound(vm, store);
  });
});

describe('a store that cannot be', () => {
  it('is refused before the machine is touched', async () => {
    const vm = await bootGuest('counter', { regs: { rsi: 64n } });
    for (const store of ['/dev/null/store', '/proc/kvmsnap', '']) {
      await expect(vm.snapshot({ store }), store).rejects.toMatchObject({
        code: expect.stringMatching(/^ERR_(STORE|INVALID_ARGUMENT)$/),
      });
    }
    expect(vm.status).toBe('running');
    await untilCounted(vm);
  });
});
