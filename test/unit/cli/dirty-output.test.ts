import { describe, expect, it } from 'vitest';
import type { EpochSummary } from '../../../lib/cli/control/protocol.js';
import { csvFormat, jsonFormat, plotFormat } from '../../../lib/cli/dirty-output.js';

const epoch = (pages: number, heat: number[] = [0, 0.01, 0.5, 1]): EpochSummary => ({
  at: 100.12345,
  pages,
  harvestUs: 12.3456,
  lostUs: 200,
  slots: [{ slot: 0, gpa: '0x0', size: 1023, pages }],
  heat,
});

describe('epochs', () => {
  it('as CSV have a header and a line each', () => {
    const format = csvFormat();
    expect(format.begin() + format.epoch(epoch(3)) + format.end()).toBe(
      'at_ms,pages,bytes,harvest_us,lost_us\n100.123,3,12288,12.346,200\n',
    );
  });

  it.each([0, 1, 3])('as JSON are one array, of %i', (count) => {
    const format = jsonFormat();
    const epochs = Array.from({ length: count }, (_, i) => epoch(i));
    const text = format.begin() + epochs.map((one) => format.epoch(one)).join('') + format.end();
    expect(JSON.parse(text)).toEqual(epochs);
  });

  it('as a chart show how many and where', () => {
    const format = plotFormat();
    expect(format.epoch(epoch(1023))).toBe(`   0.10 s      1023  ${'█'.repeat(24)}  │ ░▒█│\n`);
    expect(format.epoch(epoch(31))).toBe(
      `   0.10 s        31  ${'█'.repeat(12)}${' '.repeat(12)}  │ ░▒█│\n`,
    );
    expect(format.epoch(epoch(0, [0, 0]))).toBe(`   0.10 s         0  ${' '.repeat(24)}  │  │\n`);
  });
});
