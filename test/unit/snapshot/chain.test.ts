import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { flatten } from '../../../lib/snapshot/chain.js';
import { Extents } from '../../../lib/snapshot/extents.js';
import type { Descriptor } from '../../../lib/snapshot/format.js';
import {
  type DecodedIndex,
  decodeMemoryIndex,
  encodeMemoryIndex,
  type MemoryIndex,
} from '../../../lib/snapshot/memory-index.js';
import { PAGE } from './samples.js';

const PAGES = 40;
const REGION = { slot: 0, gpa: 0n, size: PAGES * PAGE };

/** What a layer does to each page: leaves it, makes it zero, or puts new content there. */
const layerPages = fc.array(fc.constantFrom('keep', 'keep', 'zero', 'write'), {
  minLength: PAGES,
  maxLength: PAGES,
});
type LayerPages = string[];

/** A layer as a writer would store it: runs become extents, content is packed in one part. */
function layerOf(pages: LayerPages): MemoryIndex {
  const index: MemoryIndex = {
    regions: [REGION],
    chunkSize: PAGE,
    parts: [],
    extents: [],
    zeros: [],
  };
  let stored = 0;
  for (let page = 0; page < PAGES; ) {
    let end = page + 1;
    while (end < PAGES && pages[end] === pages[page]) end++;
    const run = { gpa: BigInt(page * PAGE), length: (end - page) * PAGE };
    if (pages[page] === 'zero') index.zeros.push(run);
    if (pages[page] === 'write') {
      index.extents.push({ ...run, part: 0, offset: stored });
      stored += run.length;
    }
    page = end;
  }
  if (stored > 0) index.parts.push({ size: stored, crc32c: new Uint32Array(stored / PAGE) });
  return index;
}

/** 1000 single pages, those of each layer behind those of the one before. */
function scattered(layer: number): Extents {
  const extents = new Extents(1000);
  for (let i = 0; i < 1000; i++) extents.add((i * 4000 + layer) * PAGE, PAGE, i * PAGE, 0);
  return extents;
}

/** As it was before it was encoded. */
const original = ({ extents, zeros, ...rest }: DecodedIndex): MemoryIndex => ({
  ...rest,
  extents: [...extents].map(({ gpa, length, file, offset }) => ({
    gpa,
    length,
    part: file,
    offset,
  })),
  zeros: [...zeros].map(({ gpa, length }) => ({ gpa, length })),
});

const descriptor = (name: string, size: number): Descriptor => ({
  mediaType: 'x',
  digest: name,
  size,
});

describe('layers', () => {
  it('lie over each other as pages written in turn would', () => {
    fc.assert(
      fc.property(fc.array(layerPages, { minLength: 1, maxLength: 9 }), (chain) => {
        const layers = chain.map((pages, i) => {
          const index = decodeMemoryIndex(encodeMemoryIndex(layerOf(pages)));
          const parts = index.parts.map(({ size }) => descriptor(`layer-${i}`, size));
          return { ref: { index: descriptor('index', 1), parts }, index };
        });
        const { extents, files } = flatten(layers);

        // The model: `LAYER:OFFSET` of what each page shows.
        const model = new Array<string | undefined>(PAGES).fill(undefined);
        layers.forEach(({ index }, layer) => {
          for (const { gpa, length } of index.zeros) {
            for (let at = 0; at < length; at += PAGE) model[(Number(gpa) + at) / PAGE] = undefined;
          }
          for (const { gpa, length, offset } of index.extents) {
            for (let at = 0; at < length; at += PAGE) {
              model[(Number(gpa) + at) / PAGE] = `layer-${layer}:${offset + at}`;
            }
          }
        });
        const found = new Array<string | undefined>(PAGES).fill(undefined);
        let end = 0n;
        for (const { gpa, length, file, offset } of extents) {
          expect(gpa >= end).toBe(true);
          end = gpa + BigInt(length);
          for (let at = 0; at < length; at += PAGE) {
            found[(Number(gpa) + at) / PAGE] = `${files[file]?.digest}:${offset + at}`;
          }
        }
        expect(found).toEqual(model);
        expect(new Set([...extents].map(({ file }) => file)).size).toBe(files.length);
      }),
      { numRuns: 500 },
    );
  });

  // Quadratic merging would take minutes.
  it('merge in less than quadratic time: 1000 layers of 1000 extents', { timeout: 60_000 }, () => {
    const layers = Array.from({ length: 1000 }, (_, layer) => ({
      ref: { index: descriptor('index', 1), parts: [descriptor(`${layer}`, 1000 * PAGE)] },
      index: {
        regions: [{ slot: 0, gpa: 0n, size: 2 ** 40 }],
        chunkSize: PAGE,
        parts: [],
        zeros: new Extents(0),
        extents: scattered(layer),
      },
    }));
    expect(flatten(layers).extents).toHaveLength(1_000_000);
  });
});

describe('the memory index', () => {
  it('keeps addresses and sizes above 4 GiB', () => {
    const index: MemoryIndex = {
      regions: [
        { slot: 0, gpa: 0n, size: 3 * 2 ** 30 },
        { slot: 1, gpa: 2n ** 32n, size: 2 ** 40 },
      ],
      chunkSize: 2 ** 30,
      parts: [{ size: 2 ** 33, crc32c: Uint32Array.from([0, 1, 2, 3, 4, 5, 6, 0xffff_ffff]) }],
      extents: [{ gpa: 2n ** 39n, length: 2 ** 33, part: 0, offset: 0 }],
      zeros: [{ gpa: 0n, length: PAGE }],
    };
    expect(original(decodeMemoryIndex(encodeMemoryIndex(index)))).toEqual(index);
  });

  it('sorts what it writes, and refuses to write what it could not read', () => {
    const index: MemoryIndex = {
      regions: [REGION],
      chunkSize: PAGE,
      parts: [{ size: 2 * PAGE, crc32c: new Uint32Array(2) }],
      extents: [
        { gpa: 8192n, length: PAGE, part: 0, offset: 0 },
        { gpa: 0n, length: PAGE, part: 0, offset: PAGE },
      ],
      zeros: [],
    };
    const { extents } = decodeMemoryIndex(encodeMemoryIndex(index));
    expect([...extents].map(({ gpa }) => gpa)).toEqual([0n, 8192n]);
    index.extents.push({ gpa: 0n, length: PAGE, part: 0, offset: 0 });
    expect(() => encodeMemoryIndex(index)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
    );
  });
});
