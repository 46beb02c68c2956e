import { execFileSync, spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import type { LoadedSnapshot } from '../../../lib/snapshot/load.js';
import { SnapshotStore } from '../../../lib/snapshot/store.js';
import { addSample, MEMORY, PAGE, sampleConfig, sampleState, writePages } from './samples.js';
import { scratch } from './scratch.js';

let dir: string;
let store: SnapshotStore;
beforeEach(async () => {
  dir = join(scratch(), 'store');
  store = await SnapshotStore.open(dir, { create: true, durable: false });
});

/** Guest memory as a restore would map it: the first byte of every page. */
function firstBytes(snapshot: LoadedSnapshot): number[] {
  const pages = new Array<number>(MEMORY / PAGE).fill(0);
  const byte = Buffer.alloc(1);
  for (const { file, gpa, length, offset } of snapshot.extents) {
    for (let at = 0; at < length; at += PAGE) {
      readSync(snapshot.files[file]?.fd as number, byte, 0, 1, offset + at);
      pages[(Number(gpa) + at) / PAGE] = byte[0] as number;
    }
  }
  return pages;
}

const pagesOf = (pages: Record<number, number>): number[] =>
  Array.from({ length: MEMORY / PAGE }, (_, i) => pages[i] ?? 0);

const openFds = (): number => readdirSync('/proc/self/fd').length;
const leftovers = (): string[] => readdirSync(join(dir, '.kvmsnap', 'tmp'));
const blobs = (): string[] => readdirSync(join(dir, 'blobs', 'sha256')).sort();

describe('a store', () => {
  it('gives back what was committed, by tag and by digest', async () => {
    const { digest } = await addSample(store, { tag: 'warm', pages: { 0: 1, 1: 2, 9: 3 } });
    for (const ref of ['warm', digest]) {
      using loaded = await store.load(ref);
      expect(loaded.digest).toBe(digest);
      expect(loaded.state).toEqual(sampleState());
      expect(loaded.config.machine).toEqual(sampleConfig().machine);
      expect(loaded.regions).toEqual([{ slot: 0, gpa: 0n, size: MEMORY }]);
      expect(firstBytes(loaded)).toEqual(pagesOf({ 0: 1, 1: 2, 9: 3 }));
    }
  });

  it('joins pages that lie side by side in memory and file into one extent', async () => {
    await addSample(store, { pages: { 3: 1, 4: 2, 5: 3, 7: 4 } });
    using loaded = await store.load('sample');
    expect([...loaded.extents]).toEqual([
      { file: 0, gpa: BigInt(3 * PAGE), length: 3 * PAGE, offset: 0 },
      { file: 0, gpa: BigInt(7 * PAGE), length: PAGE, offset: 3 * PAGE },
    ]);
  });

  it('stores a machine whose memory is all zero without parts', async () => {
    await addSample(store, { pages: {} });
    using loaded = await store.load('sample');
    expect(loaded.files).toEqual([]);
    expect(firstBytes(loaded)).toEqual(pagesOf({}));
  });

  it('closes every descriptor', async () => {
    await addSample(store);
    const before = openFds();
    const loaded = await store.load('sample');
    expect(openFds()).toBe(before + 1);
    loaded.close();
    loaded.close();
    expect(openFds()).toBe(before);
    const writer = await store.begin();
    writer.openParts(5);
    await writer.abort();
    await writer.abort();
    expect(openFds()).toBe(before);
    expect(leftovers()).toEqual([]);
  });

  it('is private to its owner: guest memory holds secrets', async () => {
    await addSample(store);
    expect(statSync(dir).mode & 0o777).toBe(0o700);
    for (const name of blobs()) {
      expect(statSync(join(dir, 'blobs', 'sha256', name)).mode & 0o777).toBe(0o600);
    }
  });

  it('moves a tag to the newer snapshot and keeps the older by its digest', async () => {
    const first = await addSample(store, { tag: 'warm', seed: 1 });
    const second = await addSample(store, { tag: 'warm', seed: 2 });
    expect(await store.resolve('warm')).toBe(second.digest);
    expect(await store.tags()).toEqual(['warm']);
    using old = await store.load(first.digest);
    expect(old.state).toEqual(sampleState(1));
  });

  it('lists snapshots with sizes and says what is wrong with damaged ones', async () => {
    const good = await addSample(store, { tag: 'good' });
    const bad = await addSample(store, { tag: 'bad', seed: 9 });
    const { config } = JSON.parse(readFileSync(blobOf(bad.digest), 'utf8'));
    writeFileSync(blobOf(bad.digest), 'x');
    const list = await store.list();
    expect(list).toMatchObject([
      { tag: 'good', digest: good.digest, summary: { vcpus: 1, memory: MEMORY, layers: 1 } },
      { tag: 'bad', digest: bad.digest, problem: { code: 'ERR_SNAPSHOT_CORRUPT' } },
    ]);
    expect(config.size).toBeGreaterThan(0);
  });

  it('deletes a tag, and says so when there is none', async () => {
    await addSample(store, { tag: 'a' });
    await store.delete('a');
    expect(await store.tags()).toEqual([]);
    await expect(store.delete('a')).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_MISSING' });
    await expect(store.load('a')).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_MISSING' });
  });

  it('gives a second tag and deletes all names of a digest', async () => {
    const { digest } = await addSample(store, { tag: 'a' });
    await store.tag('a', 'b');
    expect(await store.tags()).toEqual(['a', 'b']);
    await store.delete(digest);
    expect(await store.tags()).toEqual([]);
  });

  it.each(['', '../x', 'a/b', 'a b', '-a', 'a-', 'a:b', '.', 'x'.repeat(129), 'é', 'a\0b'])(
    'refuses the tag %j',
    async (tag) => {
      await expect(addSample(store, { tag })).rejects.toMatchObject({
        code: 'ERR_INVALID_ARGUMENT',
      });
      expect(await store.tags()).toEqual([]);
      expect(leftovers()).toEqual([]);
    },
  );
});

const blobOf = (digest: string): string =>
  join(dir, 'blobs', 'sha256', digest.replace('sha256:', ''));

describe('opening', () => {
  it('says that a directory is no store', async () => {
    const elsewhere = scratch();
    await expect(SnapshotStore.open(elsewhere)).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_MISSING',
    });
    writeFileSync(join(elsewhere, 'thesis.txt'), 'x');
    await expect(SnapshotStore.open(elsewhere, { create: true })).rejects.toMatchObject({
      code: 'ERR_STORE',
      message: expect.stringContaining('thesis.txt'),
    });
  });

  it('makes one store when many make it at once', async () => {
    const path = join(scratch(), 'deep', 'store');
    const opened = await Promise.all(
      Array.from({ length: 8 }, () => SnapshotStore.open(path, { create: true })),
    );
    await Promise.all(opened.map((one, i) => addSample(one, { tag: `t${i}`, seed: i })));
    expect((await opened[0]?.tags())?.sort()).toEqual(opened.map((_, i) => `t${i}`));
  });

  it('refuses a layout of another version', async () => {
    writeFileSync(join(dir, 'oci-layout'), '{"imageLayoutVersion":"2.0.0"}');
    await expect(SnapshotStore.open(dir)).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_FORMAT' });
  });

  it('sweeps what a dead writer left, and leaves what a living one uses', async () => {
    const tmp = join(dir, '.kvmsnap', 'tmp');
    const living = await store.begin();
    living.openParts(1);
    const [mine] = readdirSync(tmp) as [string];
    const fields = mine.split('.');
    // The same process id at another start time: a process that is gone.
    fields[4] = '1';
    const dead = join(tmp, fields.join('.'));
    mkdirSync(dead);
    writeFileSync(join(dead, 'part-0'), 'left behind');
    mkdirSync(join(tmp, 'not-ours'));
    await SnapshotStore.open(dir);
    expect(readdirSync(tmp).sort()).toEqual([mine, 'not-ours'].sort());
    await living.abort();
  });

  it('keeps work of another host until it is a day old', async () => {
    const tmp = join(dir, '.kvmsnap', 'tmp');
    const foreign = join(tmp, 'aaaa-bbbb.1.2.2.3.0123456789abcdef');
    mkdirSync(foreign, { recursive: true });
    await SnapshotStore.open(dir);
    expect(existsSync(foreign)).toBe(true);
    utimesSync(foreign, new Date(0), new Date(0));
    await SnapshotStore.open(dir);
    expect(existsSync(foreign)).toBe(false);
  });

  it('does not sweep or write through a symbolic link', async () => {
    const outside = scratch();
    mkdirSync(join(outside, 'tmp'));
    const victim = join(outside, 'tmp', 'aaaa.1.2.2.3.0123456789abcdef');
    mkdirSync(victim);
    utimesSync(victim, new Date(0), new Date(0));
    execFileSync('rm', ['-r', join(dir, '.kvmsnap')]);
    symlinkSync(outside, join(dir, '.kvmsnap'));
    const again = await SnapshotStore.open(dir);
    expect(existsSync(victim)).toBe(true);
    await expect(again.begin()).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_FORMAT' });
    await expect(again.delete('x')).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_FORMAT' });
    expect(readdirSync(join(outside, 'tmp'))).toHaveLength(1);
  });
});

describe('increments', () => {
  it('lay over their parents: content, zero pages, untouched pages', async () => {
    const base = await addSample(store, { tag: 'base', pages: { 0: 1, 1: 2, 2: 3, 9: 4 } });
    const next = await addSample(store, {
      tag: 'next',
      pages: { 1: 20, 30: 30 },
      zeros: [2],
      parentDigest: base.digest,
      seed: 2,
    });
    await addSample(store, { tag: 'last', pages: { 2: 7 }, parentDigest: next.digest, seed: 3 });
    using loadedNext = await store.load('next');
    expect(firstBytes(loadedNext)).toEqual(pagesOf({ 0: 1, 1: 20, 9: 4, 30: 30 }));
    using loadedLast = await store.load('last');
    expect(firstBytes(loadedLast)).toEqual(pagesOf({ 0: 1, 1: 20, 2: 7, 9: 4, 30: 30 }));
    expect(await store.ancestors('last')).toEqual([next.digest, base.digest]);
  });

  it('outlive their parents', async () => {
    const base = await addSample(store, { tag: 'base', pages: { 0: 1 } });
    await addSample(store, { tag: 'next', pages: { 1: 2 }, parentDigest: base.digest, seed: 2 });
    await store.delete('base');
    await store.gc({ graceMs: -1000 });
    await expect(store.load(base.digest)).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_MISSING' });
    using loaded = await store.load('next');
    expect(firstBytes(loaded)).toEqual(pagesOf({ 0: 1, 1: 2 }));
    expect(await store.ancestors('next')).toEqual([]);
    await store.verify('next');
  });

  it('do not open parts that newer layers hide', async () => {
    const base = await addSample(store, { tag: 'base', pages: { 0: 1 } });
    await addSample(store, { tag: 'next', pages: { 0: 2 }, parentDigest: base.digest, seed: 2 });
    using loaded = await store.load('next');
    expect(loaded.files).toHaveLength(1);
    expect(firstBytes(loaded)).toEqual(pagesOf({ 0: 2 }));
  });

  it('are refused when the parent is missing or has other memory', async () => {
    await expect(
      addSample(store, { parentDigest: `sha256:${'0'.repeat(64)}` }),
    ).rejects.toMatchObject({ code: 'ERR_SNAPSHOT_MISSING' });
    const base = await addSample(store, { tag: 'base' });
    const writer = await store.begin();
    const memory = writePages(writer, { 0: 1 });
    const config = sampleConfig();
    config.machine.memory.regions = [{ slot: 0, gpa: 0, size: 2 * MEMORY }];
    await expect(
      writer.commit({ config, memory, state: sampleState(), parentDigest: base.digest }),
    ).rejects.toMatchObject({ code: 'ERR_INVALID_ARGUMENT' });
    expect(await store.tags()).toEqual(['base']);
    expect(leftovers()).toEqual([]);
  });
});

describe('garbage collection', () => {
  it('frees what nothing names, after a grace time', async () => {
    await addSample(store, { tag: 'keep', pages: { 0: 1 } });
    const kept = blobs();
    await addSample(store, { tag: 'drop', pages: { 5: 9 }, seed: 5 });
    await store.delete('drop');
    expect(await store.gc()).toEqual({ blobs: 0, bytes: 0 });
    const result = await store.gc({ graceMs: -1000 });
    expect(result.blobs).toBeGreaterThan(0);
    expect(blobs()).toEqual(kept);
    await store.verify('keep');
  });

  it('removes nothing when a manifest cannot be read', async () => {
    const { digest } = await addSample(store, { tag: 'a' });
    await addSample(store, { tag: 'b', seed: 2 });
    await store.delete('b');
    writeFileSync(blobOf(digest), 'damaged');
    const before = blobs();
    await expect(store.gc({ graceMs: -1000 })).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_CORRUPT',
    });
    expect(blobs()).toEqual(before);
  });

  it('keeps images of other tools, whole', async () => {
    const index = JSON.parse(readFileSync(join(dir, 'index.json'), 'utf8'));
    const layer = 'a'.repeat(64);
    const manifest = JSON.stringify({
      schemaVersion: 2,
      layers: [{ mediaType: 'x/y', digest: `sha256:${layer}`, size: 1 }],
    });
    const { sha256 } = await import('../../../lib/snapshot/blobs.js');
    const digest = sha256(Buffer.from(manifest));
    writeFileSync(blobOf(digest), manifest);
    writeFileSync(blobOf(layer), 'y');
    const entry = {
      mediaType: 'application/vnd.oci.image.manifest.v1+json',
      digest,
      size: manifest.length,
      platform: { os: 'linux', architecture: 'amd64' },
      annotations: { 'org.opencontainers.image.ref.name': 'docker.io/library/debian:12' },
    };
    index.manifests.push(entry);
    writeFileSync(join(dir, 'index.json'), JSON.stringify(index));
    await addSample(store, { tag: 'mine' });
    await store.gc({ graceMs: -1000 });
    expect(existsSync(blobOf(layer))).toBe(true);
    expect(JSON.parse(readFileSync(join(dir, 'index.json'), 'utf8')).manifests).toContainEqual(
      entry,
    );
    expect((await store.list()).map(({ tag }) => tag)).toEqual(['mine']);
    await expect(store.load('docker.io/library/debian:12')).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_FORMAT',
    });
  });
});

describe('other tools', () => {
  const hasSkopeo = spawnSync('skopeo', ['--version']).status === 0;
  it.skipIf(!hasSkopeo)('skopeo reads a snapshot and copies an increment whole', async () => {
    const base = await addSample(store, { tag: 'base', pages: { 0: 1 } });
    await addSample(store, { tag: 'next', pages: { 1: 2 }, parentDigest: base.digest, seed: 2 });
    const raw = execFileSync('skopeo', ['inspect', '--raw', `oci:${dir}:next`], {
      encoding: 'utf8',
    });
    expect(JSON.parse(raw).artifactType).toBe('application/vnd.kvmsnap.snapshot.v1');
    const copy = join(scratch(), 'copy');
    execFileSync('skopeo', ['copy', '-q', `oci:${dir}:next`, `oci:${copy}:moved`]);
    const copied = await SnapshotStore.open(copy);
    using loaded = await copied.load('moved');
    expect(firstBytes(loaded)).toEqual(pagesOf({ 0: 1, 1: 2 }));
    expect(await copied.list()).toMatchObject([{ tag: 'moved', summary: { layers: 2 } }]);
    await copied.verify('moved');
    chmodSync(copy, 0o755);
  });
});
