import { describe, expect, test } from 'vitest';
import { GROUPS, selectGroups } from '../../../scripts/bench/figures.mjs';
import { parseOptions, UsageError } from '../../../scripts/bench/options.mjs';

describe('options', () => {
  test('have defaults', () => {
    const options = parseOptions([]);
    expect(options).toMatchObject({ json: undefined, quick: false, memoryMiB: 256 });
    expect(options?.budgetMs).toBe(Number.POSITIVE_INFINITY);
    expect(options?.only.test('anything')).toBe(true);
  });

  test('--quick takes fewer samples and ends in time', () => {
    const [quick, whole] = [parseOptions(['--quick']), parseOptions([])];
    expect(quick?.rounds).toBeLessThan(whole?.rounds as number);
    expect(quick?.runs).toBeLessThan(whole?.runs as number);
    expect(quick?.budgetMs).toBeLessThan(50_000);
  });

  test('are all taken', () => {
    const options = parseOptions(
      '--json out.json --only ^full_ --memory 64 --dir /scratch --rounds 3'.split(' '),
    );
    expect(options).toMatchObject({
      json: 'out.json',
      memoryMiB: 64,
      directory: '/scratch',
      rounds: 3,
    });
    expect(options?.only.test('full_close')).toBe(true);
    expect(options?.only.test('close')).toBe(false);
  });

  test('--help asks for nothing else', () => {
    expect(parseOptions(['--help'])).toBeUndefined();
  });

  test.each([
    '--memory 31',
    '--memory 2049',
    '--memory lots',
    '--rounds 0',
    '--rounds 1.5',
    '--only (',
    '--unknown',
    'restore',
  ])('%s is a usage error', (line) => {
    expect(() => parseOptions(line.split(' '))).toThrow(UsageError);
  });
});

describe('figures', () => {
  const all = GROUPS.flatMap(({ figures }) => figures);

  test('have names of their own', () => {
    expect(new Set(all.map(({ name }) => name)).size).toBe(all.length);
  });

  test('of the full machine are compared with a full one', () => {
    for (const { name, floor } of all) {
      expect(floor.startsWith('full_'), name).toBe(name.startsWith('full_'));
    }
  });

  test('are chosen by name, and groups without any are left out', () => {
    const groups = selectGroups(/^full_close$/);
    expect(groups.map(({ name }) => name)).toEqual(['create']);
    expect(groups[0]?.figures.map(({ name }) => name)).toEqual(['full_close']);
    expect(selectGroups(/no such figure/)).toEqual([]);
  });
});
