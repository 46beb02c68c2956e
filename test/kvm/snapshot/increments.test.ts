import { readdirSync, statSync, truncateSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Snapshot, SnapshotStore, type Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { GiB, MiB } from '../../../lib/units.js';
import { canMount, mountTmpfs } from '../support/filesystems.js';
import { installedMemory, rounds } from '../support/host.js';
import { bootGuest, createVm, tracked, untilCounted, word } from '../support/machines.js';
import { scratch } from '../support/scratch.js';
import { contents } from '../support/stores.js';
import { bootWriter, writerFaults } from '../support/writer.js';

const PAGE = 4096;
const SIZE = MiB(16);

const newStore = () => SnapshotStore.open(`${scratch()}/store`, { create: true, durable: false });

/** A machine that does nothing: what is in its memory is the test's. */
const idle = (memory = SIZE) => createVm({ memory, irqchip: false });

const put = (vm: Vm, page: number, byte: number): void =>
  vm.memory.write(BigInt(page * PAGE), Buffer.alloc(PAGE, byte));

/** All of guest memory, slot after slot. */
const all = (vm: Vm): Buffer =>
  Buffer.concat(vm.memory.slots().map(({ gpa, size }) => vm.memory.read(gpa, size)));

async function restored(snapshot: Snapshot): Promise<Vm> {
  return tracked(await snapshot.restore());
}

async function expectMemory(snapshot: Snapshot, expected: Buffer): Promise<void> {
  const copy = await restored(snapshot);
  // Not `toEqual`: it would print both.
  expect(all(copy).equals(expected)).toBe(true);
  await copy.close();
}

describe('an increment', () => {
  it('holds the pages written since its parent, and no others', async () => {
    const store = await newStore();
    const vm = await idle();
    for (const page of [1, 2, 3, 600, 1200]) put(vm, page, 0xa0);
    const base = await vm.snapshot({ store, tag: 'base' });
    expect(base.stats!.pages).toBe(3 * 512);

    for (const page of [2, 700, 701]) put(vm, page, 0xb1);
    const next = await vm.snapshot({ store, tag: 'next', parent: base });
    expect(next.stats!.pages).toBe(3);
    expect(next.stats!.bytes).toBeLessThan(3 * PAGE + 64 * 1024);
    expect((await next.config()).parent).toBe(base.digest);
    expect(await store.ancestors('next')).toEqual([base.digest]);
    await expectMemory(next, all(vm));

    const same = await vm.snapshot({ store, tag: 'same', parent: next });
    expect(same.stats!.pages).toBe(0);
    await expectMemory(same, all(vm));
    await store.verify('same');
  });

  it('stores pages that became zero as such, in memory that was not', async () => {
    const store = await newStore();
    const vm = await idle();
    for (let page = 0; page < 64; page++) put(vm, page, 0xc3);
    using base = await vm.snapshot({ store });
    for (const page of [0, 7, 8, 9, 63]) put(vm, page, 0);
    put(vm, 30, 0x44);
    using next = await vm.snapshot({ store, parent: base });
    expect(next.stats!.pages).toBe(1);
    await expectMemory(next, all(vm));
    await expectMemory(base, Buffer.alloc(SIZE).fill(0xc3, 0, 64 * PAGE));
  });

  it('of scattered pages, more than are mapped anew: still those that changed', async () => {
    const store = await newStore();
    const vm = await idle();
    using base = await vm.snapshot({ store });
    for (let page = 0; page < 1200; page += 2) put(vm, page, 0x11);
    using scattered = await vm.snapshot({ store, parent: base });
    expect(scattered.stats!.pages).toBe(600);
    for (const page of [0, 400, 3001]) put(vm, page, 0x12);
    using next = await vm.snapshot({ store, parent: scattered });
    expect(next.stats!.pages).toBe(3);
    await expectMemory(next, all(vm));
    // Against an older one: all that changed since that.
    using far = await vm.snapshot({ store, parent: base });
    expect(far.stats!.pages).toBe(601);
    await expectMemory(far, all(vm));
  });

  it('after a reset and snapshots in memory, which change what memory is mapped', async () => {
    const store = await newStore();
    const vm = await idle();
    for (let page = 0; page < 100; page++) put(vm, page, page + 1);
    using base = await vm.snapshot({ store });
    put(vm, 5, 0xee);
    using inMemory = await vm.snapshot();
    put(vm, 6, 0xee);
    await vm.reset(inMemory);
    put(vm, 7, 0xee);
    using first = await vm.snapshot({ store, parent: base });
    expect(first.stats!.pages).toBe(2);
    await expectMemory(first, all(vm));
    // Back to files, whose pages are other than those that it was saved from.
    await vm.reset(base);
    put(vm, 9, 0xee);
    using second = await vm.snapshot({ store, parent: base });
    expect(second.stats!.pages).toBe(1);
    await expectMemory(second, all(vm));
    using third = await vm.snapshot({ store, parent: first });
    await expectMemory(third, all(vm));
  });

  it('of a restored machine, with the snapshot that it is from as parent', async () => {
    const store = await newStore();
    const vm = await idle();
    for (let page = 0; page < 1500; page++) put(vm, page, (page % 250) + 1);
    using base = await vm.snapshot({ store, tag: 'base', then: 'stop' });

    const copy = await restored(base);
    put(copy, 3, 0x99);
    using next = await copy.snapshot({ store, parent: base });
    expect(next.stats!.pages).toBe(1);
    await expectMemory(next, all(copy));
    // As another process would: it knows the files only.
    using again = await Snapshot.open(store, 'base');
    const other = await restored(again);
    put(other, 4, 0x98);
    using sibling = await other.snapshot({ store, parent: again });
    expect(sibling.stats!.pages).toBe(1);
    await expectMemory(sibling, all(other));
    // A grandchild, and a cousin as parent.
    const child = await restored(next);
    put(child, 8, 0x97);
    using grandchild = await child.snapshot({ store, parent: next });
    expect(grandchild.stats!.pages).toBe(1);
    await expectMemory(grandchild, all(child));
    using cousin = await child.snapshot({ store, parent: sibling });
    expect(cousin.stats!.pages).toBe(3);
    await expectMemory(cousin, all(child));
  });

  it('whose blobs an equal snapshot has put in the place of those that are open', async () => {
    const store = await newStore();
    const vm = await idle();
    for (let page = 0; page < 40; page++) put(vm, page, 0x71);
    using base = await vm.snapshot({ store });
    using child = await vm.snapshot({ store, parent: base });
    using flat = await base.flatten();
    await vm.reset(child);
    put(vm, 3, 0x72);
    for (const parent of [base, child, flat]) {
      using next = await vm.snapshot({ store, parent });
      expect(next.stats!.pages).toBe(1);
      await expectMemory(next, all(vm));
    }
  });

  it('with an ancestor of which no page is left', async () => {
    const store = await newStore();
    const vm = await idle();
    put(vm, 1, 0x73);
    using base = await vm.snapshot({ store });
    put(vm, 1, 0x74);
    using child = await vm.snapshot({ store, parent: base });
    const copy = await restored(child);
    put(copy, 2, 0x75);
    using next = await copy.snapshot({ store, parent: base });
    expect(next.stats!.pages).toBe(2);
    await expectMemory(next, all(copy));
    using merged = await child.flatten({ parent: base });
    await expectMemory(merged, all(vm));
  });

  it('with a fork’s parent: forks are of the same descent', async () => {
    const store = await newStore();
    const vm = await idle();
    for (let page = 0; page < 40; page++) put(vm, page, 0x21);
    using base = await vm.snapshot({ store });
    const [fork] = (await vm.fork(1)) as [Vm];
    tracked(fork);
    put(fork, 2, 0x22);
    put(vm, 3, 0x23);
    using ofFork = await fork.snapshot({ store, parent: base });
    expect(ofFork.stats!.pages).toBe(1);
    await expectMemory(ofFork, all(fork));
    using ofVm = await vm.snapshot({ store, parent: base });
    expect(ofVm.stats!.pages).toBe(1);
    await expectMemory(ofVm, all(vm));
  });
});

describe('a writer that runs on', () => {
  it('chain of 12: each increment is one instant', async () => {
    const pages = 700;
    const store = await newStore();
    const vm = await bootWriter(pages);
    let parent = await vm.snapshot({ store });
    for (let link = 0; link < rounds(12); link++) {
      const next = await vm.snapshot({ store, parent });
      expect(vm.status).toBe('running');
      const copy = await restored(next);
      expect(writerFaults(copy, pages)).toEqual([]);
      await copy.resume();
      await untilCounted(copy, 1n, 'writer');
      await copy.close();
      parent = next;
    }
    expect(word(vm, GUEST_ABI.ERRORS)).toBe(0n);
  });

  it('two children of one parent, each of its own machine', async () => {
    const pages = 200;
    const store = await newStore();
    const vm = await bootWriter(pages);
    using base = await vm.snapshot({ store });
    const twin = await restored(base);
    await twin.resume();
    for (let round = 0; round < 3; round++) {
      for (const machine of [vm, twin]) {
        await untilCounted(machine, 2n, 'writer');
        using child = await machine.snapshot({ store, parent: base });
        const copy = await restored(child);
        expect(writerFaults(copy, pages)).toEqual([]);
        await copy.close();
      }
    }
  });
});

describe('a chain of 50', () => {
  // Pages so far apart that most are extents of their own: more than are mapped as they are.
  it('restores, and its increments go on', async () => {
    const store = await newStore();
    const vm = await idle(MiB(64));
    const total = MiB(64) / PAGE;
    // 4000 pages, in no order; later links write some of them again.
    const page = (n: number): number => ((n % 4000) * 5003) % total;
    let tip = await vm.snapshot({ store });
    for (let link = 0; link < 50; link++) {
      for (let i = 0; i < 100; i++) {
        put(vm, page(link * 100 + i), i % 10 === 0 ? 0 : link + 1);
      }
      tip = await vm.snapshot({ store, parent: tip });
    }
    using loaded = await store.load(tip.digest);
    expect(loaded.extents.length).toBeGreaterThan(2048);
    expect((await store.ancestors(tip.digest)).length).toBe(50);
    await expectMemory(tip, all(vm));

    const copy = await restored(tip);
    put(copy, 77, 0xee);
    using onward = await copy.snapshot({ store, parent: tip });
    expect(onward.stats!.pages).toBe(1);
    await expectMemory(onward, all(copy));
    const [fork] = (await copy.fork(1)) as [Vm];
    expect(all(tracked(fork)).equals(all(copy))).toBe(true);
    await copy.reset(tip);
    expect(all(copy).equals(all(vm))).toBe(true);
    using flat = await tip.flatten();
    await expectMemory(flat, all(vm));
  });
});

describe('a chain of so many pieces that they are copied together for the first machine', () => {
  /** Every second page of 128 MiB at last: more than 16384 extents. Later links write over earlier ones. */
  async function fill(store: SnapshotStore) {
    const vm = await idle(MiB(128));
    for (let page = 0; page < MiB(128) / PAGE; page += 16) put(vm, page, 0x99);
    let tip = await vm.snapshot({ store });
    for (let link = 0; link < 6; link++) {
      for (let page = link; page < MiB(128) / PAGE; page += 1 + link) {
        // Zeros over data, too.
        if (page % 2 === 1) put(vm, page, page % 5 === 0 ? 0 : link + 1);
      }
      tip = await vm.snapshot({ store, parent: tip });
    }
    return { vm, tip };
  }

  it('restores to the right memory, and goes on from there', async () => {
    const store = await newStore();
    const { vm, tip } = await fill(store);
    using loaded = await store.load(tip.digest);
    expect(loaded.extents.length).toBeGreaterThan(16_384);
    const expected = all(vm);
    const copy = await restored(tip);
    expect(all(copy).equals(expected)).toBe(true);
    put(copy, 5, 0xee);
    using onward = await copy.snapshot({ store, parent: tip });
    expect(onward.stats!.pages).toBe(1);
    await expectMemory(onward, all(copy));
    await copy.reset(tip);
    expect(all(copy).equals(expected)).toBe(true);
  });

  it('says so when one of its files was cut short, and the process goes on', async () => {
    const store = await newStore();
    const { vm, tip } = await fill(store);
    const opened = await Snapshot.open(store, tip.digest);
    using loaded = await store.load(tip.digest);
    truncateSync(loaded.files[loaded.files.length >> 1]!.path, PAGE);
    await expect(opened.restore()).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_CORRUPT' });
    opened.close();
    // It is not made of those files.
    expect(all(vm).length).toBe(MiB(128));
  });
});

describe('a parent', () => {
  it('of another machine is refused, and the machine runs on', async () => {
    const store = await newStore();
    const vm = await bootGuest('counter', { regs: { rsi: 64n } });
    const other = await bootGuest('counter', { regs: { rsi: 64n } });
    using parent = await other.snapshot({ store });
    const before = contents(store.path);
    await expect(vm.snapshot({ store, parent })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
      message: expect.stringMatching(/full snapshot/),
    });
    expect(contents(store.path)).toEqual(before);
    expect(vm.status).toBe('running');
    await untilCounted(vm);
  });

  it('in another store, deleted, with other slots, or no snapshot at all is refused', async () => {
    const store = await newStore();
    const vm = await idle();
    using parent = await vm.snapshot({ store });
    const refused = { code: 'ERR_INVALID_ARGUMENT' };
    await expect(vm.snapshot({ store: await newStore(), parent })).rejects.toMatchObject({
      ...refused,
      message: expect.stringMatching(/another store/),
    });
    for (const bad of [{}, 'base', null, { digest: parent.digest, store }]) {
      await expect(vm.snapshot({ store, parent: bad as Snapshot })).rejects.toMatchObject(refused);
    }
    await vm.memory.addSlot({ slot: 5, gpa: BigInt(GiB(1)), size: MiB(1) });
    await expect(vm.snapshot({ store, parent })).rejects.toMatchObject({
      ...refused,
      message: expect.stringMatching(/memory regions/),
    });
    await vm.memory.removeSlot(5);
    await store.delete(parent.digest);
    await store.gc({ graceMs: -1000 });
    await expect(vm.snapshot({ store, parent })).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_MISSING',
    });
  });

  it('that is deleted takes nothing from its children', async () => {
    const store = await newStore();
    const vm = await idle();
    for (let page = 0; page < 600; page++) put(vm, page, 0x31);
    using base = await vm.snapshot({ store, tag: 'base' });
    put(vm, 1, 0x32);
    using middle = await vm.snapshot({ store, tag: 'middle', parent: base });
    put(vm, 2, 0x33);
    using top = await vm.snapshot({ store, tag: 'top', parent: middle });
    await store.delete('base');
    await store.delete('middle');
    const { blobs } = await store.gc({ graceMs: -1000 });
    expect(blobs).toBeGreaterThan(0);
    expect(await store.tags()).toEqual(['top']);
    await store.verify('top');
    await expectMemory(top, all(vm));
    // The line goes on.
    put(vm, 3, 0x34);
    using next = await vm.snapshot({ store, parent: top });
    expect(next.stats!.pages).toBe(1);
    await expectMemory(next, all(vm));
  });
});

describe('an increment that fails loses nothing', () => {
  it('aborted at any moment: the next one has all pages', async () => {
    const store = await newStore();
    const vm = await idle();
    for (let page = 0; page < 3000; page++) put(vm, page, 0x41);
    using base = await vm.snapshot({ store });
    for (let round = 0; round < rounds(20); round++) {
      for (let page = round; page < 3000; page += 3) put(vm, page, 0x42 + (round % 50));
      const before = contents(store.path);
      const controller = new AbortController();
      const saving = vm.snapshot({ store, parent: base, signal: controller.signal });
      setTimeout(() => controller.abort(), round / 2);
      const outcome = await saving.then(
        async (snapshot) => {
          await store.delete(snapshot.digest);
          await store.gc({ graceMs: -1000 });
          return 'ERR_ABORTED';
        },
        (error) => error.code,
      );
      expect(outcome).toBe('ERR_ABORTED');
      expect(contents(store.path)).toEqual(before);
    }
    put(vm, 2999, 0);
    using next = await vm.snapshot({ store, parent: base });
    await expectMemory(next, all(vm));
  });

  const mountable = canMount();
  if (!mountable) console.warn('SKIPPED: increments on a full file system: mounting needs root');

  it.skipIf(!mountable)('without space: the next one has all pages', async () => {
    const store = await SnapshotStore.open(`${mountTmpfs(MiB(6))}/store`, {
      create: true,
      durable: false,
    });
    const vm = await idle();
    for (let page = 0; page < 300; page++) put(vm, page, 0x51);
    using base = await vm.snapshot({ store });
    for (let page = 100; page < 2500; page++) put(vm, page, 0x52);
    for (let round = 0; round < 3; round++) {
      await expect(vm.snapshot({ store, parent: base })).rejects.toMatchObject({
        code: 'ERR_STORE',
        errno: 28,
      });
      put(vm, 10 + round, 0x53);
    }
    for (let page = 600; page < 2500; page++) put(vm, page, 0);
    using next = await vm.snapshot({ store, parent: base });
    expect(next.stats!.pages).toBe(503);
    await expectMemory(next, all(vm));
  });
});

describe('flatten', () => {
  it('makes one full snapshot of a chain, with the same memory and state', async () => {
    const pages = 300;
    const store = await newStore();
    const vm = await bootWriter(pages);
    let tip = await vm.snapshot({ store, tag: 'base' });
    const base = tip;
    for (let link = 0; link < 5; link++) {
      await untilCounted(vm, 1n, 'writer');
      tip = await vm.snapshot({ store, parent: tip, annotations: { link: `${link}` } });
    }
    using flat = await tip.flatten({ tag: 'flat' });
    using merged = await tip.flatten({ tag: 'merged', parent: base });
    expect((await flat.config()).parent).toBeNull();
    expect((await merged.config()).parent).toBe(base.digest);
    const layers = (await store.list()).map((entry) =>
      'summary' in entry ? [entry.tag, entry.summary.layers] : [],
    );
    expect(layers).toContainEqual(['flat', 1]);
    expect(layers).toContainEqual(['merged', 2]);

    const original = await restored(tip);
    const expected = all(original);
    const state = await original.saveState();
    for (const snapshot of [flat, merged]) {
      const copy = await restored(snapshot);
      expect(all(copy).equals(expected)).toBe(true);
      const { regs, sregs2, xsave2 } = (await copy.saveState()).vcpus[0]!;
      const { vcpus } = state;
      expect([regs, sregs2, xsave2]).toEqual([vcpus[0]!.regs, vcpus[0]!.sregs2, vcpus[0]!.xsave2]);
      expect((await snapshot.config()).annotations).toEqual({ link: '4' });
      expect((await snapshot.config()).created).toBe((await tip.config()).created);
      expect(writerFaults(copy, pages)).toEqual([]);
    }
    // A flattened one is a parent like others.
    const copy = await restored(flat);
    copy.memory.write(0n, Buffer.from('next'));
    using next = await copy.snapshot({ store, parent: flat });
    expect(next.stats!.pages).toBe(1);
    await expectMemory(next, all(copy));
  });

  it('refuses what is damaged: damage must not get good checksums', async () => {
    const store = await newStore();
    const vm = await idle();
    put(vm, 1, 0x61);
    using base = await vm.snapshot({ store });
    const blobs = join(store.path, 'blobs', 'sha256');
    const part = readdirSync(blobs).find((name) => statSync(join(blobs, name)).size === MiB(2))!;
    truncateSync(join(blobs, part), PAGE);
    truncateSync(join(blobs, part), MiB(2));
    const before = contents(store.path);
    await expect(base.flatten()).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_CORRUPT' });
    expect(contents(store.path)).toEqual(before);
    const aborted = { signal: AbortSignal.abort() };
    await expect(base.flatten(aborted)).rejects.toMatchObject({ code: 'ERR_ABORTED' });
  });
});

const tooSmall = installedMemory() < GiB(7.5);
if (tooSmall) console.warn('SKIPPED: increments of a guest with 3.5 GiB need 8 GiB');

describe.skipIf(tooSmall)('a guest with 3.5 GiB', () => {
  it('has its pages above the hole in the increment', async () => {
    const store = await newStore();
    const vm = await idle(GiB(3.5));
    const high = GUEST_ABI.HIGH_START;
    vm.memory.write(high, Buffer.alloc(3 * PAGE, 1));
    using base = await vm.snapshot({ store });
    const places = [0n, GUEST_ABI.LOW_END - 4096n, high, high + BigInt(GiB(0.5) - PAGE)];
    for (const gpa of places) vm.memory.write(gpa, Buffer.alloc(PAGE, 2));
    vm.memory.write(high + 4096n, Buffer.alloc(PAGE));
    using next = await vm.snapshot({ store, parent: base });
    expect(next.stats!.pages).toBe(4);
    const copy = await restored(next);
    for (const gpa of [...places, high + 4096n, high + 8192n]) {
      expect(copy.memory.read(gpa, PAGE)).toEqual(vm.memory.read(gpa, PAGE));
    }
  });
});
