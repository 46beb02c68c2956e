// Runs the floor program and reads its samples.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);

const alive = new Set();
// None outlives this program, however it ends.
process.on('exit', () => {
  for (const child of alive) child.kill('SIGKILL');
});

/** Samples in microseconds, by name. */
export async function measureFloor(program, groups, { memoryMiB, runs, slowRuns, scratch }) {
  if (groups.length === 0) return new Map();
  const running = run(program, [
    ...['--memory', String(memoryMiB), '--dir', scratch, '--only', groups.join()],
    ...['--runs', String(runs), '--slow-runs', String(slowRuns), '--samples'],
  ]);
  alive.add(running.child);
  const { stdout } = await running.finally(() => alive.delete(running.child));
  const { results } = JSON.parse(stdout);
  return new Map(Object.entries(results).map(([name, { samples_us }]) => [name, samples_us]));
}
