import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { add, countReport, countRun, NONE, summary } from '../../../scripts/test/counts.mjs';

const directory = mkdtempSync(join(tmpdir(), 'kvmsnap-counts-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const report = (failed: number, files: { status: string; tests: string[] }[]) => ({
  numPassedTests: 5,
  numFailedTests: failed,
  numPendingTests: 2,
  numTodoTests: 1,
  testResults: files.map(({ status, tests }) => ({
    status,
    assertionResults: tests.map((each) => ({ status: each })),
  })),
});

function fileWith(name: string, content: string): string {
  const file = join(directory, name);
  writeFileSync(file, content);
  return file;
}

describe('The count of all tests', () => {
  test('takes tests that were left out for skipped', () => {
    expect(countReport(report(0, []))).toEqual({ passed: 5, failed: 0, skipped: 3 });
  });

  test('counts a file that could not be loaded as a failure, one with failed tests once', () => {
    const files = [
      { status: 'failed', tests: [] },
      { status: 'failed', tests: ['passed', 'failed'] },
      { status: 'passed', tests: ['passed'] },
    ];
    expect(countReport(report(1, files)).failed).toBe(2);
  });

  test('a run that failed without a failed test is a failure', () => {
    const good = fileWith('good.json', JSON.stringify(report(0, [])));
    expect(countRun(good, 0)).toEqual({ passed: 5, failed: 0, skipped: 3 });
    expect(countRun(good, 1)).toEqual({ passed: 5, failed: 1, skipped: 3 });
    expect(countRun(good, null).failed).toBe(1);
  });

  test('a run without a whole report is a failure, whatever it exited with', () => {
    expect(countRun(join(directory, 'absent.json'), 0)).toEqual({ ...NONE, failed: 1 });
    expect(countRun(fileWith('cut.json', '{"numPassedTests": 3'), 0).failed).toBe(1);
  });

  test('adds up, and reads as CI wants it', () => {
    const sum = add({ passed: 1, failed: 2, skipped: 3 }, { passed: 10, failed: 20, skipped: 30 });
    expect(summary(sum)).toBe('11 passed, 22 failed, 33 skipped');
  });
});
