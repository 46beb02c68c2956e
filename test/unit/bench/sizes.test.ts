import { describe, expect, test } from 'vitest';
import { availableMiB, formatSize, neededMiB, parseSize } from '../../../scripts/bench/sizes.mjs';

test.each([
  ['256', 256],
  ['64M', 64],
  ['64MiB', 64],
  ['1G', 1024],
  ['4GiB', 4096],
  ['32', 32],
  ['8G', 8192],
])('%s is %i MiB', (text, mib) => {
  expect(parseSize(text)).toBe(mib);
});

test.each(['', '31', '9G', '8193', '1.5G', '1g', '64K', 'G', '-64', '64M ', '1e3'])(
  '"%s" is no size',
  (text) => {
    expect(parseSize(text)).toBeUndefined();
  },
);

test('sizes are written in the larger unit where they are whole', () => {
  expect([64, 1024, 1536, 4096].map(formatSize)).toEqual(['64 MiB', '1 GiB', '1536 MiB', '4 GiB']);
});

describe('memory', () => {
  test('that is available is what the kernel says', () => {
    const text = 'MemTotal:       24000000 kB\nMemFree:  1 kB\nMemAvailable:    2097153 kB\n';
    expect(availableMiB(text)).toBe(2048);
    expect(availableMiB()).toBeGreaterThan(0);
    expect(() => availableMiB('MemFree: 1 kB')).toThrow(/MemAvailable/);
  });

  test('that is needed is more than an image and what is written beside it', () => {
    for (const mib of [64, 256, 4096]) expect(neededMiB(mib)).toBeGreaterThan(2 * mib);
  });
});
