import { describe, expect, test } from 'vitest';
import { GROUPS, limitOf, selectGroups } from '../../../scripts/bench/figures.mjs';
import { parseOptions, samplesOf, UsageError } from '../../../scripts/bench/options.mjs';

describe('options', () => {
  test('have defaults', () => {
    const options = parseOptions([]);
    expect(options).toMatchObject({ json: undefined, quick: false, sizesMiB: [256] });
    expect(options?.budgetMs).toBe(Number.POSITIVE_INFINITY);
    expect(options?.only.test('anything')).toBe(true);
  });

  test('--quick takes fewer samples and ends in time', () => {
    const samples = [['--quick'], []].map((argv) => {
      const options = parseOptions(argv);
      expect(options).toBeDefined();
      return samplesOf(256, options as NonNullable<typeof options>);
    });
    const [quick, whole] = samples;
    expect(quick?.rounds).toBeLessThan(whole?.rounds as number);
    expect(quick?.runs).toBeLessThan(whole?.runs as number);
    expect(parseOptions(['--quick'])?.budgetMs).toBeLessThan(50_000);
    expect(parseOptions(['--quick', '--sizes', '64M,256M'])?.budgetMs).toBeLessThan(25_000);
    // So many rounds as were asked for are done, however slow the host is.
    expect(parseOptions(['--quick', '--rounds', '1'])?.budgetMs).toBe(Number.POSITIVE_INFINITY);
  });

  test('large machines take fewer rounds, unless it is said how many', () => {
    const rounds = (memory: number, given?: number) =>
      samplesOf(memory, { quick: false, rounds: given }).rounds;
    expect(rounds(4096)).toBeLessThan(rounds(256));
    expect(rounds(4096, 12)).toBe(12);
  });

  test('--sizes takes several', () => {
    expect(parseOptions(['--sizes', '64M,256M,1G,4G'])?.sizesMiB).toEqual([64, 256, 1024, 4096]);
  });

  test('are all taken', () => {
    const options = parseOptions(
      '--json out.json --only ^full_ --memory 64 --dir /scratch --rounds 3'.split(' '),
    );
    expect(options).toMatchObject({
      json: 'out.json',
      sizesMiB: [64],
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
    '--memory 9G',
    '--sizes 64M,',
    '--sizes 64M --memory 64M',
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
      if (floor === null) continue;
      expect(floor.startsWith('full_'), name).toBe(name.startsWith('full_'));
    }
  });

  test('are chosen by name, and groups without any are left out', () => {
    const groups = selectGroups(/^full_close$/);
    expect(groups.map(({ name }) => name)).toEqual(['create']);
    expect(groups[0]?.figures.map(({ name }) => name)).toEqual(['full_close']);
    expect(selectGroups(/no such figure/)).toEqual([]);
  });

  test('without a floor have no ratio to aim at', () => {
    for (const { name, floor, aim } of all) if (floor === null) expect(aim, name).toBeUndefined();
  });

  test('of a first pause may take longer on larger machines, those of later ones not', () => {
    const limit = (name: string, memory: number) =>
      limitOf(all.find((figure) => figure.name === name) as (typeof all)[number], memory);
    expect(limit('freeze_pause_populated', 1024)).toBe(5000);
    expect(limit('freeze_pause_populated', 4096)).toBe(20_000);
    expect(limit('later_pause_idle', 4096)).toBe(1000);
    expect(limit('increment_pause_writing', 64)).toBe(2600);
    expect(limit('close', 256)).toBeUndefined();
  });
});
