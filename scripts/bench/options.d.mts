export const USAGE: string;
export class UsageError extends Error {}
export interface BenchOptions {
  json: string | undefined;
  quick: boolean;
  only: RegExp;
  sizesMiB: number[];
  directory: string | undefined;
  rounds: number | undefined;
  budgetMs: number;
}
export function parseOptions(argv: string[]): BenchOptions | undefined;
export function samplesOf(
  memoryMiB: number,
  options: Pick<BenchOptions, 'quick' | 'rounds'>,
): { rounds: number; runs: number; slowRuns: number };
