import { describe, expect, test } from 'vitest';
import { chart } from '../../../scripts/bench/dirty/plot.mjs';
import { WORKLOADS } from '../../../scripts/bench/dirty/workloads.mjs';

const RANGE = 4096;
const names = Object.keys(WORKLOADS) as (keyof typeof WORKLOADS)[];
const distinct = (pages: number[]): number => new Set(pages).size;

describe.each(names)('the workload %s', (name) => {
  test.each([1, 7, 1000, RANGE])('writes %i pages of the range', (writes) => {
    const pages = WORKLOADS[name](writes, RANGE, 3);
    expect(pages).toHaveLength(writes);
    expect(pages.every((page) => Number.isInteger(page) && page >= 0 && page < RANGE)).toBe(true);
  });

  test('is the same for the same seed, and another for another', () => {
    expect(WORKLOADS[name](100, RANGE, 1)).toEqual(WORKLOADS[name](100, RANGE, 1));
    expect(WORKLOADS[name](100, RANGE, 1)).not.toEqual(WORKLOADS[name](100, RANGE, 2));
  });
});

test('workloads are what their names say', () => {
  const pages = Object.fromEntries(names.map((name) => [name, WORKLOADS[name](2000, RANGE, 5)]));
  const { sequential = [], random = [], hotcold = [], zipf = [] } = pages;
  expect(sequential.every((page, i) => page === (sequential[0] as number) + i)).toBe(true);
  expect(distinct(random)).toBeGreaterThan(1400);
  expect(distinct(hotcold)).toBeLessThan(450);
  expect(distinct(zipf)).toBeLessThan(distinct(random));
});

describe('a chart', () => {
  const made = { title: 'a < b', x: 'x', y: 'y', series: [{ name: 'one', points: [] }] };

  test('has a line for each series, inside its frame', () => {
    const points: [number, number][] = [
      [1, 3],
      [1000, 45_000],
      [5, 0],
    ];
    const svg = chart({ ...made, series: [{ name: 'one & two', points }, ...made.series] });
    expect(svg).toContain('a &lt; b');
    expect(svg).toContain('one &amp; two');
    expect(svg.match(/<polyline/g)).toHaveLength(1);
    // What is not positive has no place on a logarithmic axis.
    expect(svg.match(/<circle/g)).toHaveLength(2);
    for (const [, x, y] of svg.matchAll(/cx="([\d.-]+)" cy="([\d.-]+)"/g)) {
      expect(Number(x)).toBeGreaterThanOrEqual(70);
      expect(Number(x)).toBeLessThanOrEqual(510);
      expect(Number(y)).toBeGreaterThanOrEqual(40);
      expect(Number(y)).toBeLessThanOrEqual(350);
    }
  });

  test('of one point has axes', () => {
    const svg = chart({ ...made, series: [{ name: 'one', points: [[10, 10]] }] });
    expect(svg).not.toContain('NaN');
  });

  test('of nothing is refused', () => {
    expect(() => chart(made)).toThrow(RangeError);
  });
});
