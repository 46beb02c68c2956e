import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { GROUPS } from '../../../scripts/bench/figures.mjs';
import type { Result } from '../../../scripts/bench/table.mjs';

const program = fileURLToPath(new URL('../../../scripts/bench/main.mjs', import.meta.url));
let scratch: string;

beforeEach(() => {
  scratch = mkdtempSync(join(tmpdir(), 'kvmsnap-bench-test-'));
});
afterEach(() => {
  rmSync(scratch, { recursive: true, force: true });
});

// Nothing about how long anything takes: that is for people to read, on a machine without other work.
test('one small round gives every figure, as JSON and as a table', () => {
  const json = join(scratch, 'figures.json');
  const args = ['--quick', '--rounds', '1', '--memory', '32', '--dir', scratch, '--json', json];
  const { status, stdout, stderr } = spawnSync(process.execPath, [program, ...args], {
    encoding: 'utf8',
  });
  expect(stderr).toBe('32 MiB: round 1 of 1 ...\n');
  expect(status).toBe(0);

  const { results, host } = JSON.parse(readFileSync(json, 'utf8')) as {
    results: Result[];
    host: { runs: { memory_MiB: number; rounds: number; left_out?: string[] }[]; kvm: string };
  };
  const names = GROUPS.flatMap(({ figures }) => figures.map(({ name }) => name));
  expect(results.map(({ name }) => name)).toEqual(names);
  for (const result of results) {
    expect(result.n, result.name).toBeGreaterThan(0);
    // Some have no floor, and limits in time instead.
    const compared = result.floor_name === null ? [] : (['floor_us', 'ratio'] as const);
    for (const key of ['p50_us', 'p99_us', ...compared] as const) {
      expect(result[key], `${result.name} ${key}`).toSatisfy(
        (value) => Number.isFinite(value) && value > 0,
      );
    }
    expect(stdout).toContain(result.name);
  }
  expect(host.runs).toMatchObject([{ memory_MiB: 32, rounds: 1 }]);
});
