import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { dirtyRate, heatMap, redirtyHistogram, writableWorkingSet } from '../../../lib/index.js';
import { epoch } from './epochs.js';

const SIZE = 40;
const history = fc.array(fc.uniqueArray(fc.nat(SIZE - 1), { maxLength: SIZE }), { maxLength: 12 });
const epochs = (pages: number[][]) =>
  pages.map((list, i) => epoch((i + 1) * 100, { size: SIZE, pages: list }));

describe('the writable working set', () => {
  it('counts a page once in each window', () => {
    const list = epochs([[1, 2], [2, 3], [3], []]);
    expect(writableWorkingSet(list)).toEqual([3]);
    expect(writableWorkingSet(list, 1)).toEqual([2, 2, 1, 0]);
    expect(writableWorkingSet(list, 2)).toEqual([3, 2, 1]);
    expect(writableWorkingSet(list, 9)).toEqual([]);
    expect(writableWorkingSet([])).toEqual([]);
  });

  it('is that of sets', () => {
    fc.assert(
      fc.property(history, fc.integer({ min: 1, max: 5 }), (pages, window) => {
        const expected = pages
          .map((_, i) => new Set(pages.slice(Math.max(0, i - window + 1), i + 1).flat()).size)
          .slice(window - 1);
        expect(writableWorkingSet(epochs(pages), window)).toEqual(expected);
      }),
    );
  });

  it('tells pages of two slots apart', () => {
    const low = { size: 8, pages: [1] };
    const high = { slot: 1, gpa: 0x100000000n, size: 8, pages: [1] };
    expect(writableWorkingSet([epoch(0, low, high)])).toEqual([2]);
  });
});

describe('the dirty rate', () => {
  it('is pages per second of each epoch', () => {
    const list = [epoch(100, { pages: [1, 2] }), epoch(600, { pages: [1, 2, 3, 4, 5] })];
    expect(dirtyRate(list)).toEqual([20, 10]);
    expect(dirtyRate(list, 50)).toEqual([40, 10]);
  });

  it('of an epoch without length is 0', () => {
    expect(dirtyRate([epoch(0, { pages: [1] })])).toEqual([0]);
  });
});

describe('the re-dirty histogram', () => {
  it('counts pages by the number of epochs that have them', () => {
    expect(redirtyHistogram(epochs([[1, 2], [2, 3], [2]]))).toEqual([0, 2, 0, 1]);
    expect(redirtyHistogram([])).toEqual([0]);
  });

  it('counts every page and every write once', () => {
    fc.assert(
      fc.property(history, (pages) => {
        const histogram = redirtyHistogram(epochs(pages));
        const sum = (list: number[]) => list.reduce((total, value) => total + value, 0);
        expect(sum(histogram)).toBe(new Set(pages.flat()).size);
        expect(sum(histogram.map((count, times) => count * times))).toBe(pages.flat().length);
      }),
    );
  });
});

describe('the heat map', () => {
  it('has a row for each epoch and a column for each stretch of a slot', () => {
    const low = { size: 10, pages: [0, 3, 4, 9] };
    const high = { slot: 1, gpa: 0x100000000n, size: 4, pages: [3] };
    const map = heatMap([epoch(100, low, high), epoch(200, { ...low, pages: [] }, high)], 4);
    expect(map).toEqual({
      columns: [
        { gpa: 0n, pages: 4 },
        { gpa: 0x4000n, pages: 4 },
        { gpa: 0x8000n, pages: 2 },
        { gpa: 0x100000000n, pages: 4 },
      ],
      at: [100, 200],
      rows: [
        [2, 1, 1, 1],
        [0, 0, 0, 1],
      ],
    });
  });

  it('of nothing is empty', () => {
    expect(heatMap([])).toEqual({ columns: [], at: [], rows: [] });
  });

  it('counts every page in one column', () => {
    fc.assert(
      fc.property(history, fc.integer({ min: 1, max: 60 }), (pages, columns) => {
        const { rows } = heatMap(epochs(pages), columns);
        expect(rows.map((row) => row.reduce((sum, value) => sum + value, 0))).toEqual(
          pages.map((list) => list.length),
        );
      }),
    );
  });
});
