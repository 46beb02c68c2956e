// Runs the floor program and reads its samples.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

/** Samples in microseconds, by name. */
export async function measureFloor(program, groups, { memoryMiB, runs, slowRuns, scratch }) {
  if (groups.length === 0) return new Map();
  const { stdout } = await run(program, [
    ...['--memory', String(memoryMiB), '--dir', scratch, '--only', groups.join()],
    ...['--runs', String(runs), '--slow-runs', String(slowRuns), '--samples'],
  ]);
  const { results } = JSON.parse(stdout);
  return new Map(Object.entries(results).map(([name, { samples_us }]) => [name, samples_us]));
}
