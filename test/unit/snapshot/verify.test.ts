import { closeSync, openSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { crc32c } from '../../../lib/snapshot/crc32c.js';
import { digestFile } from '../../../lib/snapshot/digest.js';
import { SnapshotStore } from '../../../lib/snapshot/store.js';
import { verifyChunk } from '../../../lib/snapshot/verify.js';
import { addSample, CHUNK, checksums, PAGE } from './samples.js';
import { scratch } from './scratch.js';

let dir: string;
let store: SnapshotStore;
beforeEach(async () => {
  dir = join(scratch(), 'store');
  store = await SnapshotStore.open(dir, { create: true, durable: false });
  await addSample(store, { pages: { 0: 1, 1: 2, 2: 3, 3: 4, 9: 5 } });
});

/** Paths of the memory parts, the first first. */
function parts(): string[] {
  const blob = (digest: string): string => join(dir, 'blobs', digest.replace(':', '/'));
  const index = JSON.parse(readFileSync(join(dir, 'index.json'), 'utf8'));
  const manifest = JSON.parse(readFileSync(blob(index.manifests[0].digest), 'utf8'));
  return manifest.layers
    .filter(({ mediaType }: { mediaType: string }) => mediaType.endsWith('memory.v1'))
    .map(({ digest }: { digest: string }) => blob(digest));
}

function damage(path: string, at: number): void {
  const bytes = readFileSync(path);
  bytes[at] = (bytes[at] as number) ^ 1;
  writeFileSync(path, bytes);
}

describe('verify', () => {
  it('reads everything and counts it', async () => {
    const progress: [number, number][] = [];
    const report = await store.verify('sample', {
      onProgress: (done, total) => progress.push([done, total]),
    });
    expect(report).toMatchObject({ blobs: 6, chunks: 3 });
    expect(report.bytes).toBeGreaterThan(5 * PAGE);
    expect(progress.at(-1)).toEqual([5 * PAGE, 5 * PAGE]);
    expect(progress).toEqual([...progress].sort((a, b) => a[0] - b[0]));
  });

  it('names every part and chunk that is wrong', async () => {
    const [first, second] = parts() as [string, string];
    damage(first, CHUNK + 5);
    damage(second, 0);
    // A restore reads no memory: damage there is for verify to find.
    (await store.load('sample')).close();
    await expect(store.verify('sample')).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_CORRUPT',
      details: [{ chunks: [1] }, { chunks: [0] }],
    });
  });

  it('does as its signal says, and closes its files', async () => {
    const before = readdirSync('/proc/self/fd').length;
    const abort = new AbortController();
    const reason = store.verify('sample', {
      signal: abort.signal,
      onProgress: () => abort.abort(),
    });
    await expect(reason).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    expect(readdirSync('/proc/self/fd')).toHaveLength(before);
  });

  it('uses the digest function that it is given', async () => {
    const calls: number[] = [];
    await store.verify('sample', {
      digestFile: (fd, chunkSize, progress) => {
        calls.push(chunkSize);
        return digestFile(fd, chunkSize, progress);
      },
    });
    expect(calls).toEqual([CHUNK, CHUNK]);
  });
});

describe('one chunk', () => {
  it('is checked alone', async () => {
    const [path] = parts() as [string];
    const bytes = readFileSync(path);
    damage(path, CHUNK + 5);
    const part = { size: bytes.length, crc32c: checksums(bytes) };
    const file = { path, fd: openSync(path, 'r'), size: bytes.length };
    expect(await verifyChunk(file, part, CHUNK, 0)).toEqual(bytes.subarray(0, CHUNK));
    await expect(verifyChunk(file, part, CHUNK, 1)).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_CORRUPT',
      details: { chunk: 1 },
    });
    await expect(verifyChunk(file, part, CHUNK, 2)).rejects.toMatchObject({
      code: 'ERR_INVALID_ARGUMENT',
    });
    closeSync(file.fd);
  });
});

describe('CRC-32C', () => {
  // RFC 3720, appendix B.4.
  it.each([
    [Buffer.alloc(32), 0x8a9136aa],
    [Buffer.alloc(32, 0xff), 0x62a8ab43],
    [Buffer.from(Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e],
    [Buffer.from('123456789'), 0xe3069283],
  ])('of %o', (bytes, expected) => {
    expect(crc32c(bytes)).toBe(expected);
    expect(crc32c(bytes.subarray(5), crc32c(bytes.subarray(0, 5)))).toBe(expected);
  });
});
