// Counts of tests, from the reports that vitest's JSON reporter writes.

import { readFileSync } from 'node:fs';
import { readJournal } from './journal.mjs';
import { listRetries } from './retries.mjs';

export const NONE = { passed: 0, failed: 0, skipped: 0, failures: [], retried: [] };

export const add = (a, b) => ({
  passed: a.passed + b.passed,
  failed: a.failed + b.failed,
  skipped: a.skipped + b.skipped,
  failures: [...a.failures, ...b.failures],
  retried: [...a.retried, ...b.retried],
});

const firstLine = (text) => text?.split('\n', 1)[0] ?? '';

function failuresOf({ name, message, assertionResults }) {
  const failed = assertionResults
    .filter(({ status }) => status === 'failed')
    .map((test) => `${name}: ${test.fullName}: ${firstLine(test.failureMessages?.[0])}`);
  return failed.length > 0 ? failed : [`${name}: ${firstLine(message)}`];
}

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
    failures: report.testResults.filter(({ status }) => status === 'failed').flatMap(failuresOf),
    retried: [],
  };
}

/**
 * The counts of a run that ended with exit status `status` and should have left `file`. A run that
 * failed without a failed test (a crash, an unhandled error, a lost machine) counts as one failure. The
 * journal, if it kept one, says which tests were tried again. One that left no report is counted from it.
 */
export function countRun(file, status, journal) {
  const entries = readJournal(journal);
  let counts;
  try {
    counts = { ...countReport(JSON.parse(readFileSync(file, 'utf8'))), retried: entries.retried };
  } catch {
    return countUnreported(entries, status);
  }
  if (counts.failed > 0 || status === 0) return counts;
  const failures = [`the run ended with status ${status} without a failed test`];
  return { ...counts, failed: 1, failures };
}

function countUnreported({ running, passed, failed, skipped, retried }, status) {
  const at = running.map((name) => `; ${name} had not ended`).join('');
  const failures = [`the run left no report (status ${status})${at}`];
  return { passed, failed: failed + 1, skipped, failures, retried };
}

/** One line for each failed test, and for each that was tried again, for the end of a long log. */
export const listFailures = ({ failures, retried }) =>
  listRetries(retried) + failures.map((failure) => `FAILED ${failure}\n`).join('');

/** As CI reads it: alone on the last line. */
export const summary = ({ passed, failed, skipped }) =>
  `${passed} passed, ${failed} failed, ${skipped} skipped`;
