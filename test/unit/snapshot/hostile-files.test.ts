import { execFileSync } from 'node:child_process';
import {
  cpSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SnapshotStore } from '../../../lib/snapshot/store.js';
import { attempt, REFUSED } from './hostile-attempt.js';
import {
  copyOf,
  INDEX,
  LAST_INDEX,
  onLayer,
  STATE,
  samplePieces,
  writeStore,
  writtenDigest,
} from './hostile-store.js';
import { scratch } from './scratch.js';

const good = await samplePieces();
const digest = await writtenDigest(good);

it('the sample itself is accepted', async () => {
  expect(await attempt(writeStore(good))).toBe(digest);
});

describe('files that are not what they should be', () => {
  const canary = (): string => {
    const path = join(scratch(), 'canary');
    writeFileSync(path, 'secret outside of the store');
    return path;
  };
  const blobFiles = (dir: string): string[] =>
    readdirSync(join(dir, 'blobs', 'sha256')).map((name) => join(dir, 'blobs', 'sha256', name));

  it('a link in place of any blob is refused, even one to the right bytes', async () => {
    const count = blobFiles(writeStore(good)).length;
    expect(count).toBeGreaterThanOrEqual(8);
    for (let i = 0; i < count; i++) {
      const dir = writeStore(good);
      const path = blobFiles(dir).sort()[i] as string;
      const outside = join(scratch(), 'same-bytes');
      cpSync(path, outside);
      rmSync(path);
      symlinkSync(outside, path);
      expect(await attempt(dir)).toBe('ERR_SNAPSHOT_FORMAT');
    }
  });

  it.each(['oci-layout', 'index.json', 'blobs', 'blobs/sha256'])(
    '%s as a link is refused, even one to the right bytes',
    async (name) => {
      const dir = writeStore(good);
      const outside = join(scratch(), 'moved');
      renameSync(join(dir, name), outside);
      symlinkSync(outside, join(dir, name));
      expect(await attempt(dir)).toBe('ERR_SNAPSHOT_FORMAT');
    },
  );

  it.each(['oci-layout', 'index.json'])(
    '%s as a link shows nothing of its target',
    async (name) => {
      const dir = writeStore(good);
      rmSync(join(dir, name));
      symlinkSync(canary(), join(dir, name));
      const error = await SnapshotStore.open(dir)
        .then((store) => store.load('sample'))
        .catch((reason) => reason);
      expect(error).toMatchObject({ code: 'ERR_SNAPSHOT_FORMAT' });
      expect(String(error.message)).not.toContain('secret');
    },
  );

  it.each(['fifo', 'directory', 'device'])('a %s in place of a blob is refused', async (kind) => {
    for (const path of blobFiles(writeStore(good)).map((p) => p.split('/').at(-1) as string)) {
      const dir = writeStore(good);
      const target = join(dir, 'blobs', 'sha256', path);
      rmSync(target);
      if (kind === 'fifo') execFileSync('mkfifo', [target]);
      else if (kind === 'directory') mkdirSync(target);
      else symlinkSync('/dev/zero', target);
      expect(await attempt(dir)).toBe('ERR_SNAPSHOT_FORMAT');
    }
  });

  it('a missing blob is named', async () => {
    for (const path of blobFiles(writeStore(good)).map((p) => p.split('/').at(-1) as string)) {
      const dir = writeStore(good);
      rmSync(join(dir, 'blobs', 'sha256', path));
      // A part that an increment hides is only missed by verify.
      expect(await attempt(dir)).toMatch(/^ERR_SNAPSHOT_(MISSING|CORRUPT)$/);
    }
  });

  it('a sparse blob of 1 TiB is not read', async () => {
    for (const layer of [STATE, INDEX, 2]) {
      const dir = writeStore(good, onLayer(layer, { size: 2 ** 40 }));
      const name = good.manifest.layers[layer].digest.slice(7);
      truncateSync(join(dir, 'blobs', 'sha256', name), 2 ** 40);
      expect(await attempt(dir)).toMatch(REFUSED);
    }
  });

  it.each(['../../etc/passwd', '/etc/passwd', 'sha256:../x', '', '.', 'a\0b', 'sha256:'])(
    'asking for %j finds nothing',
    async (ref) => {
      expect(await attempt(writeStore(good), ref)).toBe('ERR_SNAPSHOT_MISSING');
    },
  );
});

describe('random damage', () => {
  /** Accepted means unchanged: what digests do not cover may hold no more than names. */
  const refusedOrSame = async (dir: string): Promise<void> => {
    const result = await attempt(dir);
    if (result !== digest) expect(result).toMatch(REFUSED);
  };

  const damage = fc.record({
    file: fc.nat(),
    at: fc.nat(),
    kind: fc.constantFrom('flip', 'cut', 'grow', 'zero', 'swap'),
    bit: fc.nat(7),
  });

  it('300 stores with a damaged file', { timeout: 120_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(damage, async ({ file, at, kind, bit }) => {
        const dir = writeStore(good);
        const blobs = readdirSync(join(dir, 'blobs', 'sha256')).map((n) => join('blobs/sha256', n));
        const names = ['oci-layout', 'index.json', ...blobs.sort()];
        const path = join(dir, names[file % names.length] as string);
        const before = readFileSync(path);
        const bytes = Buffer.from(before);
        const position = at % bytes.length;
        if (kind === 'flip') bytes[position] = (bytes[position] as number) ^ (1 << bit);
        if (kind === 'zero') bytes.subarray(position, position + 64).fill(0);
        if (kind === 'swap') bytes.subarray(position).reverse();
        if (kind === 'cut') truncateSync(path, position);
        else writeFileSync(path, kind === 'grow' ? Buffer.concat([bytes, bytes]) : bytes);
        const isBlob = path.includes('sha256');
        const isChanged = kind === 'cut' || kind === 'grow' || !before.equals(bytes);
        if (isBlob && isChanged) expect(await attempt(dir)).toMatch(REFUSED);
        else await refusedOrSame(dir);
      }),
      { numRuns: 300, seed: 20_261_121 },
    );
  });

  it('400 blobs that are damaged under a digest that fits', { timeout: 120_000 }, async () => {
    let refused = 0;
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(STATE, INDEX, LAST_INDEX),
        fc.array(fc.tuple(fc.nat(), fc.nat(255)), { minLength: 1, maxLength: 3 }),
        async (layer, changes) => {
          const pieces = copyOf(good);
          const bytes = Buffer.from(pieces.layers[layer] as Buffer);
          // Heads and keys lie at both ends of the state: register bytes in between are anyone's.
          const span = layer === STATE ? 120 : bytes.length;
          for (const [at, value] of changes) {
            const place = layer === STATE && at % 2 ? bytes.length - 1 - (at % span) : at % span;
            bytes[place] = value;
          }
          pieces.layers[layer] = bytes;
          const result = await attempt(writeStore(pieces));
          if (result.startsWith('ERR')) {
            expect(result).toMatch(REFUSED);
            refused++;
          }
        },
      ),
      { numRuns: 400, seed: 20_261_121 },
    );
    expect(refused).toBeGreaterThan(200);
  });
});
