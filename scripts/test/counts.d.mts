export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}
export const NONE: Counts;
export function add(a: Counts, b: Counts): Counts;
export function countReport(report: {
  numPassedTests: number;
  numFailedTests: number;
  numPendingTests: number;
  numTodoTests: number;
  testResults: { status: string; assertionResults: { status: string }[] }[];
}): Counts;
export function countRun(file: string, status: number | null): Counts;
export function summary(counts: Counts): string;
