// Counts of tests, from the reports that vitest's JSON reporter writes.

import { readFileSync } from 'node:fs';

export const NONE = { passed: 0, failed: 0, skipped: 0 };

export const add = (a, b) => ({
  passed: a.passed + b.passed,
  failed: a.failed + b.failed,
  skipped: a.skipped + b.skipped,
});

/** The counts of one report. A file that could not be run as a whole is a failure of its own. */
export function countReport(report) {
  const brokenFiles = report.testResults.filter(
    ({ status, assertionResults }) =>
      status === 'failed' && !assertionResults.some((test) => test.status === 'failed'),
  );
  return {
    passed: report.numPassedTests,
    failed: report.numFailedTests + brokenFiles.length,
    skipped: report.numPendingTests + report.numTodoTests,
  };
}

/**
 * The counts of a run that ended with exit status `status` and should have left `file`. A run that
 * failed without a failed test (a crash, an unhandled error, a lost machine) counts as one failure.
 */
export function countRun(file, status) {
  let counts = NONE;
  let whole = true;
  try {
    counts = countReport(JSON.parse(readFileSync(file, 'utf8')));
  } catch {
    whole = false;
  }
  if (counts.failed === 0 && (status !== 0 || !whole)) counts = { ...counts, failed: 1 };
  return counts;
}

/** As CI reads it: alone on the last line. */
export const summary = ({ passed, failed, skipped }) =>
  `${passed} passed, ${failed} failed, ${skipped} skipped`;
