import { describe, expect, test } from 'vitest';
import { combine, percentile, summarize } from '../../../scripts/bench/statistics.mjs';

const upTo = (n: number) => Array.from({ length: n }, (_, i) => i + 1);

describe('percentile', () => {
  test.each([
    [upTo(100), 50, 50],
    [upTo(100), 99, 99],
    [upTo(101), 50, 51],
    [upTo(101), 99, 100],
    [upTo(5), 50, 3],
    [upTo(5), 99, 5],
    [upTo(4), 50, 2],
    [[7], 50, 7],
    [[7], 99, 7],
  ])('nearest rank: case %#', (samples, percent, expected) => {
    expect(percentile(samples, percent)).toBe(expected);
  });

  test('neither needs sorted samples nor sorts the caller’s', () => {
    const samples = [10, 9, 100, 1];
    expect(percentile(samples, 50)).toBe(9);
    expect(percentile(samples, 99)).toBe(100);
    expect(samples).toEqual([10, 9, 100, 1]);
  });

  test('sorts by number, not by text', () => {
    expect(percentile([2, 10, 3], 99)).toBe(10);
  });

  test('refuses no samples', () => {
    expect(() => percentile([], 50)).toThrow(RangeError);
  });
});

test('summarize gives median, 99th percentile and count', () => {
  expect(summarize(upTo(200))).toEqual({ p50: 100, p99: 198, n: 200 });
});

describe('combine', () => {
  test('pools samples of all rounds, and says how rounds differ', () => {
    const combined = combine([
      { product: [30, 30, 30], floor: [10, 10, 10] },
      { product: [20, 20], floor: [20, 20] },
    ]);
    expect(combined).toEqual({
      p50_us: 30,
      p99_us: 30,
      n: 5,
      floor_us: 10,
      ratio: 3,
      floor_p99_us: 20,
      floor_n: 5,
      ratio_lowest: 1,
      ratio_highest: 3,
    });
  });

  test('is without a ratio where the floor has no such figure', () => {
    expect(combine([{ product: [5, 6], floor: [] }])).toEqual({
      p50_us: 5,
      p99_us: 6,
      n: 2,
      floor_us: null,
      ratio: null,
    });
  });
});
