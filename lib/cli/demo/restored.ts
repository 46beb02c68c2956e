/**
 * The second process of the demo: restores the snapshot that it is told of, lets it count on, and
 * says what it saw, as one JSON object on its IPC channel.
 */
import { finished } from 'node:stream/promises';
import { z } from 'zod';
import { Snapshot } from '../../index.js';
import { readCount } from './counter.js';

export const restoredSchema = z.object({
  pid: z.int().positive(),
  /** The guest's count in memory before it ran, and after. */
  countInMemory: z.int().nonnegative(),
  countInMemoryAfter: z.int().nonnegative(),
  /** All that this machine printed. */
  serial: z.string(),
  restoreMs: z.number(),
  firstOutputMs: z.number(),
});
export type Restored = z.infer<typeof restoredSchema>;

/** Restores and runs until the guest printed so many lines. */
export async function restoreAndCount(
  store: string,
  ref: string,
  lines: number,
): Promise<Restored> {
  using snapshot = await Snapshot.open(store, ref);
  const started = performance.now();
  await using vm = await snapshot.restore();
  const restoreMs = performance.now() - started;
  const countInMemory = readCount(vm);
  let serial = '';
  let firstOutputMs = 0;
  const enough = new Promise<void>((resolve) => {
    vm.console.on('data', (bytes: Buffer) => {
      if (serial === '') firstOutputMs = performance.now() - started;
      serial += bytes.toString('latin1');
      if (serial.split('\n').length > lines) resolve();
    });
  });
  await vm.resume();
  await Promise.race([enough, vm.wait()]);
  await vm.pause();
  const countInMemoryAfter = readCount(vm);
  const printed = finished(vm.console, { writable: false });
  await vm.close();
  await printed;
  return { pid: process.pid, countInMemory, countInMemoryAfter, serial, restoreMs, firstOutputMs };
}
