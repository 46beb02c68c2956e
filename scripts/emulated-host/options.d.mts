export const USAGE: string;
export class UsageError extends Error {}
export interface RunOptions {
  shards: number;
  timeoutMs: number;
  memoryMiB: number;
  share: string | undefined;
  environment: Record<string, string>;
  logDirectory: string | undefined;
  command: string[];
}
export function parseOptions(argv: string[]): RunOptions | undefined;
