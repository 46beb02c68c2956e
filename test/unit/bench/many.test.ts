import { describe, expect, test } from 'vitest';
import { parseManyOptions } from '../../../scripts/bench/many/options.mjs';
import {
  type Fanout,
  formatChurn,
  formatFanout,
  leftBehind,
} from '../../../scripts/bench/many/report.mjs';
import { counts, freeDescriptors, pssKiB } from '../../../scripts/bench/many/usage.mjs';
import { UsageError } from '../../../scripts/bench/options.mjs';

describe('options', () => {
  test('have defaults', () => {
    expect(parseManyOptions(['fanout'])).toEqual({
      what: 'fanout',
      memoryMiB: 256,
      count: 1000,
      lanes: [1, 4],
      ms: 5000,
      json: undefined,
    });
  });

  test('are all taken', () => {
    const line = 'churn --memory 1G --count 7 --parallel 2,8 --seconds 3 --json out.json';
    expect(parseManyOptions(line.split(' '))).toEqual({
      what: 'churn',
      memoryMiB: 1024,
      count: 7,
      lanes: [2, 8],
      ms: 3000,
      json: 'out.json',
    });
    expect(parseManyOptions(['--help'])).toBeUndefined();
  });

  test.each([
    '',
    'fan',
    'fanout churn',
    'fanout --count 0',
    'fanout --count 1e3',
    'churn --parallel 1,',
    'churn --seconds 0',
    'churn --memory 1T',
    'churn --unknown',
  ])('"%s" is a usage error', (line) => {
    expect(() => parseManyOptions(line.split(' ').filter(Boolean))).toThrow(UsageError);
  });
});

describe('what a process holds', () => {
  test('is read as the kernel writes it', () => {
    const rollup = '00400000-7fff [rollup]\nRss:  900 kB\nPss:     123 kB\nPss_Dirty: 7 kB\n';
    expect(pssKiB(rollup)).toBe(123);
    expect(() => pssKiB('Rss: 1 kB')).toThrow(/Pss/);
    expect(pssKiB()).toBeGreaterThan(1000);
  });

  test('has descriptors, threads and mappings', () => {
    for (const value of Object.values(counts())) expect(value).toBeGreaterThan(0);
  });

  test('leaves so many descriptors', () => {
    const limits = (soft: string): string =>
      `Limit   Soft Limit  Hard Limit  Units\nMax open files            ${soft}      20000   files\n`;
    expect(freeDescriptors(limits('unlimited'))).toBe(Number.POSITIVE_INFINITY);
    const free = freeDescriptors(limits('5000'));
    expect(free).toBeLessThan(5000);
    expect(free).toBeGreaterThan(4000);
  });
});

const fanout: Fanout = {
  kind: 'least',
  count: 1000,
  forkUs: 800_000,
  forksPerSecond: 1250,
  idlePssKiB: 20.25,
  ranPssKiB: 33,
  fdsEach: 2,
  mapsEach: 2,
  firstExit: { p50: 300, p99: 900, n: 1000 },
  closeUs: 500_000,
  closeLongestTurnUs: 2000,
  left: { fds: 0, threads: 0, maps: 3, pssKiB: 40 },
};

test('a fan-out is written with its aim', () => {
  const text = formatFanout(fanout);
  expect(text).toMatch(/^all made in +800 ms +1250 forks\/s$/m);
  expect(text).toMatch(/20\.\d KiB +within 150 KiB/);
  expect(formatFanout({ ...fanout, idlePssKiB: 151 })).toMatch(/151\.0 KiB +beyond 150 KiB/);
});

test('only descriptors and threads count as left behind', () => {
  expect(leftBehind(fanout)).toBe(false);
  expect(leftBehind({ left: { ...fanout.left, fds: 1 } })).toBe(true);
  expect(leftBehind({ left: { ...fanout.left, threads: 1 } })).toBe(true);
});

test('churn is a line for each way', () => {
  const text = formatChurn([
    { kind: 'full', how: 'pooled', parallel: 4, perSecond: 1234.5, p50: 500, p99: 1500, n: 99 },
  ]);
  expect(text).toMatch(/^full +pooled +4 +123[45] +500 µs +1\.50 ms +99$/m);
});
