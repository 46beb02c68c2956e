import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type CborMap, decodeCbor, encodeCbor } from '../../../lib/snapshot/cbor.js';
import { LIMITS, MEDIA_TYPE_MEMORY, MEDIA_TYPE_WORKING_SET } from '../../../lib/snapshot/format.js';
import { SnapshotStore } from '../../../lib/snapshot/store.js';
import { decodeWorkingSet, encodeWorkingSet } from '../../../lib/snapshot/working-set.js';
import { attempt, itRefuses } from './hostile-attempt.js';
import { copyOf, type Json, type Pieces, samplePieces, writeStore } from './hostile-store.js';
import { addSample, MEMORY, PAGE } from './samples.js';
import { scratch } from './scratch.js';

const REGIONS = [{ gpa: 0n, size: MEMORY }];
const run = (page: number, count = 1) => ({ gpa: BigInt(page * PAGE), count });
const RUNS = [run(40, 3), run(1), run(9, 2)];

const newStore = () => SnapshotStore.open(`${scratch()}/store`, { create: true, durable: false });

describe('a working set', () => {
  it('is read as it was written, whatever its order', () => {
    const HIGH = [...REGIONS, { gpa: 2n ** 32n, size: 8 * PAGE }];
    const pages = fc.uniqueArray(fc.integer({ min: 0, max: MEMORY / PAGE + 7 }));
    const gpa = (page: number): bigint =>
      page < MEMORY / PAGE ? BigInt(page * PAGE) : 2n ** 32n + BigInt(page * PAGE - MEMORY);
    fc.assert(
      fc.property(pages, (list) => {
        const runs = list.map((page) => ({ gpa: gpa(page), count: 1 }));
        expect(decodeWorkingSet(encodeWorkingSet(runs, HIGH), HIGH)).toEqual(runs);
      }),
    );
    expect(decodeWorkingSet(encodeWorkingSet([], REGIONS), REGIONS)).toEqual([]);
  });

  it('of any bytes is refused, or sound', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 96 }), (runs) => {
        const bytes = encodeCbor({ format: 'kvmsnap.memory.workingset', version: 1, runs });
        let decoded: ReturnType<typeof decodeWorkingSet>;
        try {
          decoded = decodeWorkingSet(bytes, REGIONS);
        } catch (error) {
          expect(error).toMatchObject({ code: 'ERR_SNAPSHOT_FORMAT' });
          return;
        }
        for (const { gpa, count } of decoded) {
          expect(gpa % 4096n).toBe(0n);
          expect(count).toBeGreaterThan(0);
          expect(gpa + BigInt(count * PAGE)).toBeLessThanOrEqual(BigInt(MEMORY));
        }
      }),
    );
  });

  it('has as many runs as it may, and its blob room for them', () => {
    const size = (LIMITS.workingSetRuns + 1) * 2 * PAGE;
    const many = Array.from({ length: LIMITS.workingSetRuns }, (_, i) => run(2 * i));
    const bytes = encodeWorkingSet(many, [{ gpa: 0n, size }]);
    expect(bytes.length).toBeLessThan(LIMITS.workingSet);
    many.push(run(2 * many.length));
    expect(() => encodeWorkingSet(many, [{ gpa: 0n, size }])).toThrow(/more than 1048576/);
  });
});

describe('a store', () => {
  it('keeps a working set with a snapshot, and knows it everywhere', async () => {
    const store = await newStore();
    const plain = await addSample(store, { tag: 'plain' });
    const digest = await store.addWorkingSet('plain', RUNS, { tag: 'warm' });
    expect(digest).not.toBe(plain.digest);
    using loaded = await store.load('warm');
    using bare = await store.load('plain');
    expect(loaded.workingSet).toEqual(RUNS);
    expect(bare.workingSet).toBeUndefined();
    expect([...loaded.extents]).toEqual([...bare.extents]);
    const [first, second] = await store.list();
    expect(first).toMatchObject({ tag: 'plain', summary: { workingSet: false } });
    expect(second).toMatchObject({ tag: 'warm', summary: { workingSet: true } });
    expect((second as Json).summary.bytes).toBeGreaterThan((first as Json).summary.bytes);
    const report = await store.verify('warm');
    expect(report.blobs).toBe((await store.verify('plain')).blobs + 1);

    // The working set goes with the last snapshot that has it.
    await store.delete('plain');
    expect((await store.gc({ graceMs: -1000 })).blobs).toBe(1);
    await store.verify('warm');
    await store.tag('warm', 'kept');
    await store.delete('warm');
    await store.verify('kept');
    await store.delete('kept');
    await store.gc({ graceMs: -1000 });
    expect((await store.gc({ graceMs: -1000 })).blobs).toBe(0);
  });

  it('takes one for a snapshot by digest, moves its tag, and forgets the one before', async () => {
    const store = await newStore();
    const { digest } = await addSample(store);
    await store.addWorkingSet(digest, RUNS, { tag: 'sample' });
    const again = await store.addWorkingSet('sample', [run(5)], { tag: 'sample' });
    using loaded = await store.load('sample');
    expect(loaded.digest).toBe(again);
    expect(loaded.workingSet).toEqual([run(5)]);
    const child = await addSample(store, { tag: 'child', parentDigest: again });
    using next = await store.load(child.digest);
    expect(next.workingSet).toBeUndefined();
  });

  it('is as before when it is refused', async () => {
    const store = await newStore();
    await addSample(store);
    for (const runs of [[run(64)], [run(63, 2)], [run(1), run(1)], [run(3, 2), run(2, 2)]]) {
      await expect(store.addWorkingSet('sample', runs, { tag: 'x' })).rejects.toMatchObject({
        code: 'ERR_INVALID_ARGUMENT',
      });
    }
    await expect(store.addWorkingSet('none', RUNS)).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_MISSING',
    });
    expect(await store.tags()).toEqual(['sample']);
    expect((await store.gc({ graceMs: -1000 })).blobs).toBe(0);
  });
});

const good = await samplePieces();
const goodBytes = Buffer.from(encodeWorkingSet(RUNS, REGIONS));

function withWorkingSet(bytes: Uint8Array, change: (layers: Json[]) => void = () => {}): Pieces {
  const pieces = copyOf(good);
  pieces.manifest.layers.push({ mediaType: MEDIA_TYPE_WORKING_SET });
  pieces.layers.push(Buffer.from(bytes));
  change(pieces.manifest.layers);
  return pieces;
}

function changed(change: (value: CborMap & Json) => void): Pieces {
  const value = decodeCbor(goodBytes, 'test') as Json;
  change(value);
  return withWorkingSet(encodeCbor(value));
}

const records = (...words: bigint[]): Uint8Array => {
  const view = new DataView(new ArrayBuffer(words.length * 8));
  words.forEach((word, i) => {
    view.setBigUint64(i * 8, word, true);
  });
  return new Uint8Array(view.buffer);
};
const withRuns = (...words: bigint[]): Pieces =>
  changed((value) => {
    value.runs = records(...words);
  });

it('a store made by hand with a good working set is accepted', async () => {
  expect(await attempt(writeStore(withWorkingSet(goodBytes)))).toMatch(/^sha256:/);
});

describe('a working set, under a digest that fits, is refused when it is', () => {
  itRefuses({
    'not CBOR': () => withWorkingSet(Buffer.from('hello')),
    empty: () => withWorkingSet(Buffer.alloc(0)),
    'followed by bytes': () => withWorkingSet(Buffer.concat([goodBytes, Buffer.from([0])])),
    'of another format': () =>
      changed((value) => {
        value.format = 'kvmsnap.memory.index';
      }),
    'of the future': () =>
      changed((value) => {
        value.version = 2;
      }),
    'of no version': () =>
      changed((value) => {
        value.version = 0;
      }),
    'with an unknown key': () =>
      changed((value) => {
        value.extra = 1;
      }),
    'without runs': () =>
      changed((value) => {
        delete value.runs;
      }),
    'with runs that are an array': () =>
      changed((value) => {
        value.runs = [1, 2];
      }),
    'half a record': () => changed((value) => (value.runs = value.runs.slice(0, 24))),
    'not page-aligned': () => withRuns(1n, 4096n),
    'of half a page': () => withRuns(0n, 2048n),
    'of no page': () => withRuns(0n, 0n),
    'beyond memory': () => withRuns(BigInt(MEMORY), 4096n),
    'across the end of memory': () => withRuns(BigInt(MEMORY - PAGE), 8192n),
    'of 2^64 bytes': () => withRuns(0n, 2n ** 64n - 4096n),
    'around the end of the address space': () => withRuns(2n ** 64n - 4096n, 8192n),
    'a page twice': () => withRuns(4096n, 4096n, 0n, 8192n),
    'a run twice': () => withRuns(4096n, 4096n, 4096n, 4096n),
    'named before the memory': () =>
      withWorkingSet(goodBytes, (layers) => {
        [layers[1], layers[layers.length - 1]] = [layers.at(-1), layers[1]];
      }),
    'named twice': () => {
      const pieces = withWorkingSet(goodBytes);
      pieces.manifest.layers.push({ mediaType: MEDIA_TYPE_WORKING_SET });
      pieces.layers.push(goodBytes);
      return pieces;
    },
    'named as a memory part': () =>
      withWorkingSet(goodBytes, (layers) => {
        layers.at(-1).mediaType = MEDIA_TYPE_MEMORY;
      }),
    'said to be huge': () => [
      withWorkingSet(goodBytes),
      {
        manifest: (manifest: Json) => {
          manifest.layers.at(-1).size = LIMITS.workingSet + 1;
          return manifest;
        },
      },
    ],
    'said to be of another size': () => [
      withWorkingSet(goodBytes),
      {
        manifest: (manifest: Json) => {
          manifest.layers.at(-1).size -= 1;
          return manifest;
        },
      },
    ],
  });
});
