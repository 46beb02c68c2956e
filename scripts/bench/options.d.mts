export const USAGE: string;
export class UsageError extends Error {}
export interface BenchOptions {
  json: string | undefined;
  quick: boolean;
  only: RegExp;
  memoryMiB: number;
  directory: string | undefined;
  rounds: number;
  runs: number;
  slowRuns: number;
  budgetMs: number;
}
export function parseOptions(argv: string[]): BenchOptions | undefined;
