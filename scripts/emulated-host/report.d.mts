export const EXIT_TIMEOUT: number;
export const EXIT_HOST_FAILED: number;
export const EXIT_INTERRUPTED: number;
export type MachineResult = { qemuOutput: string } & (
  | { kind: 'exited'; status: number }
  | { kind: 'died'; reason: string }
  | { kind: 'failed'; reason: string }
  | { kind: 'timeout'; limit: 'boot' | 'job' }
  | { kind: 'aborted' }
);
export function linePrefixer(
  stream: { write(text: string): unknown },
  prefix: string,
): { write(chunk: Buffer): void; end(): void };
export function exitStatusOf(result: MachineResult): number;
export function failureReport(
  result: MachineResult,
  context: { serialLog: string; timeoutMs: number },
): string[];
