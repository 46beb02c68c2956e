import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { withLock } from '../../../lib/snapshot/lock.js';
import { SnapshotStore } from '../../../lib/snapshot/store.js';
import { Workspace } from '../../../lib/snapshot/workspace.js';
import { compile, startCommitter } from './compiled.js';
import { addSample, PAGE, sampleConfig, sampleState, writePages } from './samples.js';
import { scratch } from './scratch.js';

let compiled: string;
beforeAll(() => {
  compiled = compile();
});

const newStore = async (): Promise<string> => {
  const path = join(scratch(), 'store');
  await SnapshotStore.open(path, { create: true, durable: false });
  return path;
};

const leftovers = (path: string): string[] => [
  ...readdirSync(join(path, '.kvmsnap')).filter((name) => name !== 'tmp'),
  ...readdirSync(join(path, '.kvmsnap', 'tmp')),
];

/** Names and bytes of a store that a failed commit must leave as they were. */
const contents = (path: string): unknown => [
  readFileSync(join(path, 'index.json'), 'utf8'),
  readdirSync(join(path, 'blobs', 'sha256')).sort(),
  leftovers(path),
];

describe('kill -9 while committing', () => {
  it.each([false, true])(
    'leaves each snapshot whole or absent (durable: %s)',
    {
      timeout: 120_000,
    },
    async (durable) => {
      const path = await newStore();
      const reported: string[] = [];
      for (let round = 0; round < 20; round++) {
        const committer = startCommitter(compiled, path, `r${round}-`, 1000, durable);
        await committer.reached(round % 3);
        await sleep(Math.random() * 30);
        committer.process.kill('SIGKILL');
        await committer.exited;
        for (let i = 0; i < committer.committed(); i++) reported.push(`r${round}-${i}`);

        const store = await SnapshotStore.open(path);
        // The lock of the dead, if it held it, is in nobody's way.
        const begun = performance.now();
        await addSample(store, { tag: `after${round}`, seed: round });
        expect(performance.now() - begun).toBeLessThan(5000);
        expect(leftovers(path)).toEqual([]);
      }
      const store = await SnapshotStore.open(path);
      const tags = await store.tags();
      expect(tags).toEqual(expect.arrayContaining(reported));
      expect(reported.length).toBeGreaterThan(0);
      for (const tag of tags) await store.verify(tag);
    },
  );
});

describe('several writers', () => {
  it('of different processes all get their tags in, also past the lock of a dead one', {
    timeout: 120_000,
  }, async () => {
    const path = await newStore();
    const store = await SnapshotStore.open(path, { durable: false });
    for (let round = 0; round < 5; round++) {
      const probe = await store.begin();
      const [alive] = readdirSync(join(path, '.kvmsnap', 'tmp')) as [string];
      await probe.abort();
      const fields = alive.split('.');
      fields[4] = `${round + 1}`;
      writeFileSync(join(path, '.kvmsnap', 'lock'), fields.join('.'));
      // The dead one's lock was being broken by another that died.
      fields[4] = `${round + 100}`;
      const lock = readFileSync(join(path, '.kvmsnap', 'lock'), 'utf8');
      writeFileSync(join(path, '.kvmsnap', `break-${lock}-0`), fields.join('.'));

      const writers = ['a', 'b', 'c'].map((name) =>
        startCommitter(compiled, path, `${round}${name}`, 8),
      );
      expect(await Promise.all(writers.map(({ exited }) => exited))).toEqual([0, 0, 0]);
    }
    const expected = [0, 1, 2, 3, 4].flatMap((round) =>
      ['a', 'b', 'c'].flatMap((name) => Array.from({ length: 8 }, (_, i) => `${round}${name}${i}`)),
    );
    expect((await store.tags()).sort()).toEqual(expected.sort());
    expect(leftovers(path)).toEqual([]);
  });

  it("the lock of a thread that ended is in nobody's way", { timeout: 20_000 }, async () => {
    const path = await newStore();
    const worker = new Worker(
      `const { workerData, parentPort } = require('node:worker_threads');
      Promise.all(['lock', 'workspace'].map((name) => import(workerData.lib + name + '.js')))
        .then(([{ withLock }, { Workspace }]) => withLock(new Workspace(workerData.path), () => {
          parentPort.postMessage('locked');
          return new Promise(() => setInterval(() => {}, 1000));
        }));`,
      { eval: true, workerData: { lib: `${compiled}/lib/snapshot/`, path } },
    );
    expect(await once(worker, 'message')).toEqual(['locked']);
    const store = await SnapshotStore.open(path, { durable: false });
    const waiting = addSample(store, { tag: 'mine' });
    await sleep(100);
    expect(await store.tags()).toEqual([]);
    await worker.terminate();
    await waiting;
    expect(await store.tags()).toEqual(['mine']);
    await SnapshotStore.open(path);
    expect(leftovers(path)).toEqual([]);
  });

  it('of one process wait for each other', async () => {
    const store = await SnapshotStore.open(await newStore(), { durable: false });
    const tags = Array.from({ length: 20 }, (_, i) => `t${i}`);
    await Promise.all(tags.map((tag, i) => addSample(store, { tag, seed: i })));
    expect((await store.tags()).sort()).toEqual(tags.sort());
  });

  it('an abort while another holds the lock leaves the store as it was', async () => {
    const path = await newStore();
    const store = await SnapshotStore.open(path, { durable: false });
    const holder = new Workspace(path);
    let release: () => void = () => {};
    const held = withLock(holder, () => new Promise<void>((resolve) => (release = resolve)));
    const writer = await store.begin();
    const memory = writePages(writer, { 0: 1 });
    const abort = new AbortController();
    const commit = writer.commit({
      tag: 'x',
      config: sampleConfig(),
      state: sampleState(),
      memory,
      signal: abort.signal,
    });
    setTimeout(() => abort.abort(), 50);
    await expect(commit).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    release();
    await held;
    await holder.remove();
    expect(await store.tags()).toEqual([]);
    expect(leftovers(path)).toEqual([]);
  });
});

describe('file systems that refuse', () => {
  let mountPoint: string | undefined;
  const mountTmpfs = (): string => {
    mountPoint = scratch();
    const { status } = spawnSync('mount', ['-t', 'tmpfs', '-o', 'size=512k', 'tmpfs', mountPoint]);
    expect(status).toBe(0);
    return mountPoint;
  };
  afterEach(() => {
    if (mountPoint) spawnSync('umount', ['-l', mountPoint]);
    mountPoint = undefined;
  });
  const probe = scratch();
  const canMount = spawnSync('mount', ['-t', 'tmpfs', 'tmpfs', probe]).status === 0;
  if (canMount) spawnSync('umount', [probe]);
  else console.warn('SKIPPED: full and read-only file systems: mounting a tmpfs needs root');

  let path: string;
  let store: SnapshotStore;
  beforeEach(async () => {
    if (!canMount) return;
    path = join(mountTmpfs(), 'store');
    store = await SnapshotStore.open(path, { create: true });
    await addSample(store, { tag: 'first' });
  });

  it.skipIf(!canMount)(
    'a disk that fills up at any step leaves the store as before',
    {
      timeout: 60_000,
    },
    async () => {
      const before = contents(path);
      let failures = 0;
      for (let room = 0; room < 16; room++) {
        const writer = await store.begin();
        const memory = writePages(writer, { 3: 7 });
        const filler = join(path, '..', 'filler');
        fill(filler, room);
        const input = { tag: 'second', config: sampleConfig(), state: sampleState(room), memory };
        const error = await writer.commit(input).then(
          () => undefined,
          (reason) => reason,
        );
        rmSync(filler);
        if (error) {
          failures++;
          expect(error).toMatchObject({ code: 'ERR_STORE', errno: 28 });
          expect(error.message).toContain('free space');
          expect(contents(path)).toEqual(before);
        } else {
          await store.verify('second');
          await store.delete('second');
          await store.gc({ graceMs: -1000 });
          expect(contents(path)).toEqual([expect.any(String), ...(before as unknown[]).slice(1)]);
        }
        await store.verify('first');
      }
      expect(failures).toBeGreaterThan(3);
    },
  );

  it.skipIf(!canMount)(
    'a read-only store can be listed, loaded and verified, not written',
    async () => {
      expect(spawnSync('mount', ['-o', 'remount,ro', mountPoint as string]).status).toBe(0);
      const again = await SnapshotStore.open(path);
      expect(await again.list()).toMatchObject([{ tag: 'first' }]);
      (await again.load('first')).close();
      await again.verify('first');
      const refusal = {
        code: 'ERR_STORE',
        errno: 30,
        message: expect.stringContaining('read-only'),
      };
      await expect(again.begin()).rejects.toMatchObject(refusal);
      await expect(again.delete('first')).rejects.toMatchObject(refusal);
      await expect(again.gc()).rejects.toMatchObject(refusal);
      const fresh = join(mountPoint as string, 'new');
      await expect(SnapshotStore.open(fresh, { create: true })).rejects.toMatchObject(refusal);
    },
  );

  it('too few file descriptors: says so, and leaves nothing behind', async () => {
    const elsewhere = await newStore();
    const script = `
      const { SnapshotStore } = await import('${compiled}/lib/snapshot/store.js');
      const store = await SnapshotStore.open('${elsewhere}');
      const writer = await store.begin();
      try {
        writer.openParts(1000);
      } catch (error) {
        await writer.abort();
        console.log(error.code, error.errno, error.syscall, error.message);
      }`;
    const { stdout, stderr } = spawnSync(
      'sh',
      ['-c', 'ulimit -n 400; exec "$0" --input-type=module -e "$1"', process.execPath, script],
      { encoding: 'utf8' },
    );
    expect(stderr).toBe('');
    expect(stdout).toMatch(/^ERR_STORE 24 open .*ulimit -n/);
    expect(leftovers(elsewhere)).toEqual([]);
  });

  it.skipIf(process.getuid?.() === 0)(
    'a directory without permission (root has all: skipped)',
    async () => {
      const locked = join(scratch(), 'locked');
      mkdirSync(locked, { mode: 0o500 });
      await expect(
        SnapshotStore.open(join(locked, 'store'), { create: true }),
      ).rejects.toMatchObject({ code: 'ERR_STORE', errno: 13 });
    },
  );
});

/** Fills the file system, then gives `pages` pages back. */
function fill(path: string, pages: number): void {
  spawnSync('dd', ['if=/dev/zero', `of=${path}`, `bs=${PAGE}`]);
  const size = readFileSync(path).length;
  spawnSync('truncate', ['-s', `${Math.max(0, size - pages * PAGE)}`, path]);
}
