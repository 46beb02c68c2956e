import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import {
  add,
  countReport,
  countRun,
  listFailures,
  NONE,
  summary,
} from '../../../scripts/test/counts.mjs';

const directory = mkdtempSync(join(tmpdir(), 'kvmsnap-counts-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

const report = (failed: number, files: { status: string; tests: string[] }[]) => ({
  numPassedTests: 5,
  numFailedTests: failed,
  numPendingTests: 2,
  numTodoTests: 1,
  testResults: files.map(({ status, tests }, index) => ({
    name: `file${index}`,
    status,
    message: 'cannot be loaded\nat once',
    assertionResults: tests.map((each, test) => ({
      status: each,
      fullName: `test ${test}`,
      failureMessages: each === 'failed' ? ['expected 1 to be 2\nat line 3'] : [],
    })),
  })),
});

function fileWith(name: string, content: string): string {
  const file = join(directory, name);
  writeFileSync(file, content);
  return file;
}

describe('The count of all tests', () => {
  test('takes tests that were left out for skipped', () => {
    expect(countReport(report(0, []))).toEqual({ ...NONE, passed: 5, skipped: 3 });
  });

  test('counts a file that could not be loaded as a failure, one with failed tests once', () => {
    const files = [
      { status: 'failed', tests: [] },
      { status: 'failed', tests: ['passed', 'failed'] },
      { status: 'passed', tests: ['passed'] },
    ];
    const counts = countReport(report(1, files));
    expect(counts.failed).toBe(2);
    expect(listFailures(counts)).toBe(
      'FAILED file0: cannot be loaded\nFAILED file1: test 1: expected 1 to be 2\n',
    );
  });

  test('a run that failed without a failed test is a failure', () => {
    const good = fileWith('good.json', JSON.stringify(report(0, [])));
    expect(countRun(good, 0)).toEqual({ ...NONE, passed: 5, skipped: 3 });
    expect(countRun(good, 1)).toMatchObject({ passed: 5, failed: 1, skipped: 3 });
    expect(countRun(good, 1).failures).toHaveLength(1);
    expect(countRun(good, null).failed).toBe(1);
  });

  test('a run without a whole report is a failure, whatever it exited with', () => {
    expect(countRun(join(directory, 'absent.json'), 0)).toMatchObject({ failed: 1, passed: 0 });
    expect(countRun(fileWith('cut.json', '{"numPassedTests": 3'), 0).failed).toBe(1);
  });

  test('a run that left a journal and no report is counted from it, and says what it was at', () => {
    const entries = [
      { began: 'a.test.ts: one' },
      { began: 'b.test.ts: two' },
      { ended: 'a.test.ts: one', state: 'passed', retries: 2 },
    ];
    const lines = entries.map((entry) => `${JSON.stringify(entry)}\n`).join('');
    const journal = fileWith('run.journal', `${lines}{"ended": "b.te`);
    const counts = countRun(join(directory, 'absent.json'), 0, journal);
    expect(counts).toMatchObject({ passed: 1, failed: 1, skipped: 0 });
    expect(listFailures(counts)).toBe(
      'RETRIED a.test.ts: one: 2 times\nFAILED the run left no report (status 0); b.test.ts: two had not ended\n',
    );
  });

  test('a run says which tests were tried again, though they passed', () => {
    const good = fileWith('retried.json', JSON.stringify(report(0, [])));
    const entries = [{ began: 'a' }, { ended: 'a', state: 'passed', retries: 1 }];
    const journal = entries.map((entry) => `${JSON.stringify(entry)}\n`).join('');
    const counts = countRun(good, 0, fileWith('retried.journal', journal));
    expect(counts).toMatchObject({ passed: 5, failed: 0 });
    expect(listFailures(add(NONE, counts))).toBe('RETRIED a: 1 times\n');
  });

  test('adds up, and reads as CI wants it', () => {
    const sum = add(
      { passed: 1, failed: 2, skipped: 3, failures: ['a', 'b'], retried: [] },
      { passed: 10, failed: 20, skipped: 30, failures: ['c'], retried: [] },
    );
    expect(sum.failures).toEqual(['a', 'b', 'c']);
    expect(summary(sum)).toBe('11 passed, 22 failed, 33 skipped');
  });
});
