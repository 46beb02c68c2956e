import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { epoch } from './epochs.js';

const HIGH = 0x100000000n;

describe('an epoch', () => {
  it('gives its pages as runs, by address, none across slots', () => {
    const low = { gpa: 0n, size: 16, pages: [0, 1, 2, 7, 8, 15] };
    const high = { slot: 1, gpa: 0x10000n, size: 8, pages: [0, 7] };
    const made = epoch(5, low, high);
    expect(made.pages).toEqual([
      { gpa: 0n, count: 3 },
      { gpa: 0x7000n, count: 2 },
      { gpa: 0xf000n, count: 1 },
      { gpa: 0x10000n, count: 1 },
      { gpa: 0x17000n, count: 1 },
    ]);
    expect(made).toMatchObject({ at: 5, harvestUs: 1, lostUs: 2, count: 8, bytes: 8 * 4096 });
  });

  it('without pages has no runs', () => {
    expect(epoch(0, { pages: [] }).pages).toEqual([]);
    expect(epoch(0).count).toBe(0);
  });

  it('has the same pages as runs and as bits', () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.nat(299), { maxLength: 300 }), (pages) => {
        const runs = epoch(0, { gpa: HIGH, size: 300, pages }).pages;
        const found = runs.flatMap(({ gpa, count }) =>
          Array.from({ length: count }, (_, i) => Number((gpa - HIGH) / 4096n) + i),
        );
        expect(found).toEqual([...pages].sort((a, b) => a - b));
        // Maximal: no run begins where another ends.
        const ends = new Set(runs.map(({ gpa, count }) => gpa + BigInt(count) * 4096n));
        expect(runs.filter(({ gpa }) => ends.has(gpa))).toEqual([]);
      }),
    );
  });
});
