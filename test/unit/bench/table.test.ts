import { expect, test } from 'vitest';
import { formatHost, formatTable, formatTime } from '../../../scripts/bench/table.mjs';

test.each([
  [0.42, '0.4 µs'],
  [99.94, '99.9 µs'],
  [99.95, '100 µs'],
  [999.4, '999 µs'],
  [999.5, '1.00 ms'],
  [9994, '9.99 ms'],
  [9995, '10.0 ms'],
  [99_949, '99.9 ms'],
  [99_950, '100 ms'],
  [999_499, '999 ms'],
  [999_500, '1.00 s'],
  [12_345_678, '12.35 s'],
])('%d µs is %s', (us, text) => {
  expect(formatTime(us)).toBe(text);
});

const measured = { p50_us: 800, p99_us: 1500, n: 41, floor_us: 500, ratio: 1.6 };
const rounds = { ratio_lowest: 1.5, ratio_highest: 1.75 };

test('a table has a line for each figure, in columns', () => {
  const lines = formatTable([
    { name: 'restore_file_ready', ...measured, ...rounds, aim: 1.5 },
    { name: 'close', ...measured, ...rounds, aim: 1.6 },
    { name: 'alone', p50_us: 3, p99_us: 4, n: 2, floor_us: null, ratio: null },
  ]).split('\n');
  expect(lines).toEqual([
    'figure                 p50      p99   N  floor p50  ratio     by round  aim',
    '------------------  ------  -------  --  ---------  -----  -----------  -----------',
    'restore_file_ready  800 µs  1.50 ms  41     500 µs   1.60  1.50 - 1.75  beyond 1.50',
    'close               800 µs  1.50 ms  41     500 µs   1.60  1.50 - 1.75  within 1.60',
    'alone               3.0 µs   4.0 µs   2          -      -            -',
  ]);
});

test('a time is compared with its limit too', () => {
  const text = formatTable([
    { name: 'both', ...measured, ...rounds, aim: 1.5, limit_us: 800 },
    { name: 'time', p50_us: 801, p99_us: 900, n: 3, floor_us: null, ratio: null, limit_us: 800 },
  ]);
  expect(text).toMatch(/^both .* beyond 1\.50, within 800 µs$/m);
  expect(text).toMatch(/^time .* beyond 800 µs$/m);
});

test('a host is described in whole', () => {
  const host = { cpu: 'Some CPU', cpus: 2, kernel: '6.1.0', kvm: 'SVM', node: '20.19.0' };
  const run = { memory_MiB: 256, load_before: 0.5, load_after: 1.25, rounds: 5 };
  const text = formatHost(host, run);
  for (const part of ['Some CPU', '2 CPUs', '6.1.0', 'SVM', '20.19.0', '256 MiB', '0.50', '1.25']) {
    expect(text).toContain(part);
  }
});
