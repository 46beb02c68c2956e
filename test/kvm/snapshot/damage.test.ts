import {
  closeSync,
  openSync,
  readdirSync,
  readSync,
  statSync,
  truncateSync,
  writeSync,
} from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { type Snapshot, SnapshotStore, type Vm } from '../../../lib/index.js';
import { MiB } from '../../../lib/units.js';
import { bootGuest, createVm, stopOf, tracked, untilCounted } from '../support/machines.js';
import { scratch } from '../support/scratch.js';
import { contents } from '../support/stores.js';

const PAGE = 4096;
/** Larger than a chunk, in one granule of two chunks. */
const SIZE = MiB(4);
/** A page of the second chunk, and one of its neighbours. */
const DAMAGED = 300;
const NEIGHBOUR = 301;

const put = (vm: Vm, page: number, bytes: Uint8Array): void =>
  vm.memory.write(BigInt(page * PAGE), bytes);

const blobsOf = (store: SnapshotStore): string => join(store.path, 'blobs', 'sha256');

/** Names of memory parts: nothing else in these stores is as large. */
const partsOf = (store: SnapshotStore): string[] =>
  readdirSync(blobsOf(store)).filter((name) => statSync(join(blobsOf(store), name)).size >= MiB(2));

function flipByte(path: string, at: number): void {
  const fd = openSync(path, 'r+');
  try {
    const byte = Buffer.alloc(1);
    readSync(fd, byte, 0, 1, at);
    writeSync(fd, Buffer.from([(byte[0] as number) ^ 0x40]), 0, 1, at);
  } finally {
    closeSync(fd);
  }
}

async function forkOf(vm: Vm): Promise<Vm> {
  const [child] = await vm.fork();
  return tracked(child!);
}

interface Saved {
  store: SnapshotStore;
  snapshot: Snapshot;
  /** The memory part. */
  part: string;
}

/** A machine that does nothing, with content all over its first granule. */
async function saved(): Promise<Saved> {
  const store = await SnapshotStore.open(`${scratch()}/store`, { create: true, durable: false });
  const vm = await createVm({ memory: SIZE, irqchip: false });
  for (let page = 0; page < 512; page++) put(vm, page, Buffer.alloc(PAGE, 1 + (page % 250)));
  const snapshot = await vm.snapshot({ store, tag: 'base' });
  await vm.close();
  const [part] = partsOf(store) as [string];
  expect(statSync(join(blobsOf(store), part)).size).toBe(MiB(2));
  return { store, snapshot, part };
}

const damage = ({ store, part }: Saved, page = DAMAGED): void =>
  flipByte(join(blobsOf(store), part), page * PAGE + 100);

/** What a machine that was restored saves, in ways in which bytes come from the snapshot's file. */
const SAVES: Record<string, (vm: Vm, saved: Saved) => Promise<unknown>> = {
  'a full snapshot of all as it was': (vm, { store }) => vm.snapshot({ store }),
  'a full snapshot beside other content': async (vm, { store }) => {
    put(vm, 700, Buffer.alloc(PAGE, 7));
    await vm.snapshot({ store });
  },
  'a full snapshot with a page of the chunk written': async (vm, { store }) => {
    put(vm, NEIGHBOUR, Buffer.alloc(PAGE, 7));
    await vm.snapshot({ store });
  },
  // What was copied on write has the damage of what it was copied from.
  'an increment with a part of the page written': async (vm, { store, snapshot }) => {
    put(vm, DAMAGED, Buffer.from('x'));
    await vm.snapshot({ store, parent: snapshot });
  },
  'an increment of a fork of a fork': async (vm, { store, snapshot }) => {
    put(vm, DAMAGED, Buffer.from('x'));
    const child = await forkOf(vm);
    put(child, 5, Buffer.from('y'));
    const grandchild = await forkOf(child);
    await grandchild.snapshot({ store, parent: snapshot });
  },
  'a full snapshot of a fork': async (vm, { store }) => {
    const child = await forkOf(vm);
    await child.snapshot({ store });
  },
  'a full snapshot after a reset': async (vm, { store, snapshot }) => {
    await vm.reset(snapshot);
    await vm.snapshot({ store });
  },
  flatten: async (_, { snapshot }) => snapshot.flatten(),
};

describe('what is saved of a damaged part', () => {
  it.each(Object.keys(SAVES))('fails and leaves the store as it was: %s', async (name) => {
    const all = await saved();
    const vm = tracked(await all.snapshot.restore());
    damage(all);
    const before = contents(all.store.path);
    const save = (SAVES[name] as (typeof SAVES)[string])(vm, all);
    await expect(save).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_CORRUPT',
      message: expect.stringContaining(all.part),
    });
    expect(contents(all.store.path)).toEqual(before);
  });

  it('is named by its blob and where in it', async () => {
    const all = await saved();
    const vm = tracked(await all.snapshot.restore());
    damage(all);
    await expect(vm.snapshot({ store: all.store })).rejects.toThrow(
      `memory part sha256:${all.part}, offset ${MiB(1)}`,
    );
  });

  it.each(Object.keys(SAVES))('is whole where nothing is damaged: %s', async (name) => {
    const all = await saved();
    const vm = tracked(await all.snapshot.restore());
    await (SAVES[name] as (typeof SAVES)[string])(vm, all);
    for (const { digest } of await all.store.list()) await all.store.verify(digest);
  });

  it('is found where memory came on demand', async () => {
    const all = await saved();
    damage(all);
    const vm = tracked(await all.snapshot.restore({ paging: {} }));
    await vm.pageIn();
    await expect(vm.snapshot({ store: all.store })).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_CORRUPT',
    });
  });

  it('is none of a machine whose memory came from elsewhere', async () => {
    const all = await saved();
    const good = tracked(await all.snapshot.restore());
    const bytes = Buffer.from(good.memory.read(0n, SIZE));
    damage(all);
    const source = {
      read: (gpa: bigint, length: number) => bytes.subarray(Number(gpa), Number(gpa) + length),
    };
    const vm = tracked(await all.snapshot.restore({ paging: { source } }));
    const next = await vm.snapshot({ store: all.store });
    await all.store.verify(next.digest);
  });

  it('is not read for an increment that has nothing to do with it', async () => {
    const all = await saved();
    const vm = tracked(await all.snapshot.restore());
    damage(all);
    put(vm, 5, Buffer.from('x'));
    const next = await vm.snapshot({ store: all.store, parent: all.snapshot });
    expect(next.stats!.pages).toBe(1);
  });

  it('is found when it has become a hole', async () => {
    const all = await saved();
    const vm = tracked(await all.snapshot.restore());
    const path = join(blobsOf(all.store), all.part);
    truncateSync(path, 0);
    truncateSync(path, MiB(2));
    await expect(vm.snapshot({ store: all.store })).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_CORRUPT',
    });
  });
});

describe('restore({ verify: true })', () => {
  it('reads all before it hands the machine out', async () => {
    const all = await saved();
    tracked(await all.snapshot.restore({ verify: true }));
    damage(all);
    await expect(all.snapshot.restore({ verify: true })).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_CORRUPT',
      message: expect.stringContaining(all.part),
    });
    const aborted = { verify: true, signal: AbortSignal.abort() };
    await expect(all.snapshot.restore(aborted)).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await expect(all.snapshot.restore({ verify: 'yes' as never })).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
    });
    // The default maps memory, and reads none of it.
    tracked(await all.snapshot.restore());
  });
});

describe('a part that is cut to nothing', () => {
  /** Every part, as whoever copies a store over itself does. */
  const cut = (store: SnapshotStore): void => {
    for (const part of partsOf(store)) truncateSync(join(blobsOf(store), part), 0);
  };
  const corrupt = { code: 'ERR_SNAPSHOT_CORRUPT' };

  async function expectUnusable(vm: Vm, store: SnapshotStore): Promise<void> {
    await expect(vm.reset()).rejects.toMatchObject(corrupt);
    await expect(vm.fork()).rejects.toMatchObject(corrupt);
    await expect(vm.snapshot()).rejects.toMatchObject(corrupt);
    await expect(vm.snapshot({ store })).rejects.toMatchObject(corrupt);
  }

  it.each([
    ['counter', 0],
    ['counter', 3],
    ['writer', 3],
  ] as const)('poisons the machine that runs on it: %s in ring %i', async (name, ring) => {
    const store = await SnapshotStore.open(`${scratch()}/store`, { create: true, durable: false });
    const source = await bootGuest(name, { ring, regs: { rsi: 64n } });
    const snapshot = await source.snapshot({ store });
    const vm = tracked(await snapshot.restore());
    await vm.start();
    if (name === 'counter') await untilCounted(vm);
    cut(store);
    const stop = await stopOf(vm);
    expect(vm.status).toBe('poisoned');
    expect(stop.reason).toBe('error');
    expect(stop.error?.message).toContain('cut short');
    await expectUnusable(vm, store);
    await vm.close();
  });

  it('makes one that stands of no use, and new ones are refused', async () => {
    const all = await saved();
    const vm = tracked(await all.snapshot.restore());
    cut(all.store);
    await expectUnusable(vm, all.store);
    await expect(all.snapshot.restore()).rejects.toMatchObject(corrupt);
    expect(vm.status).toBe('paused');
  });

  it('is not held against one that goes back to another snapshot', async () => {
    const all = await saved();
    const vm = tracked(await all.snapshot.restore());
    using safe = await tracked(await createVm({ memory: SIZE, irqchip: false })).snapshot();
    cut(all.store);
    await vm.reset(safe);
    expect(vm.status).toBe('paused');
    await forkOf(vm);
  });
});
