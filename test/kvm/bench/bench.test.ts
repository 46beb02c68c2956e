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
  expect(stderr).toBe('round 1 of 1 ...\n');
  expect(status).toBe(0);

  const { results, host } = JSON.parse(readFileSync(json, 'utf8')) as {
    results: Result[];
    host: { memory_MiB: number; rounds: number; kvm: string };
  };
  const names = GROUPS.flatMap(({ figures }) => figures.map(({ name }) => name));
  expect(results.map(({ name }) => name)).toEqual(names);
  for (const result of results) {
    expect(result.n, result.name).toBeGreaterThan(0);
    for (const key of ['p50_us', 'p99_us', 'floor_us', 'ratio'] as const) {
      expect(result[key], `${result.name} ${key}`).toSatisfy(
        (value) => Number.isFinite(value) && value > 0,
      );
    }
    expect(stdout).toContain(result.name);
  }
  expect(host).toMatchObject({ memory_MiB: 32, rounds: 1 });
});
