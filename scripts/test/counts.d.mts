import type { Retried } from './retries.mjs';

export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
  /** File, test and first line of the message of each failure. */
  failures: string[];
  /** Tests that were tried more than once. */
  retried: Retried[];
}
export const NONE: Counts;
export function add(a: Counts, b: Counts): Counts;
export function countReport(report: {
  numPassedTests: number;
  numFailedTests: number;
  numPendingTests: number;
  numTodoTests: number;
  testResults: {
    name: string;
    status: string;
    message?: string;
    assertionResults: { status: string; fullName: string; failureMessages?: string[] }[];
  }[];
}): Counts;
export function countRun(file: string, status: number | null, journal?: string): Counts;
export function listFailures(counts: Counts): string;
export function summary(counts: Counts): string;
