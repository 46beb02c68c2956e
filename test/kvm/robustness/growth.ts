/** What samples of a process say about what it leaves behind. */
import { expect } from 'vitest';
import { MiB } from '../../../lib/units.js';
import { MEMORY_TELLS } from './compiled.js';

/** As children/usage.mjs measures it. */
export interface Usage {
  fds: number;
  threads: number;
  maps: number;
  rss: number;
}

const median = (values: number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] as number;

/** Fails when one of them grows from sample to sample. Prints what was measured. */
export function expectFlat(what: string, samples: readonly Usage[]): void {
  expect(samples.length).toBeGreaterThanOrEqual(25);
  // The first part warms up caches: V8's heap, malloc's arenas, glibc's thread stacks.
  const warm = samples.slice(Math.floor(samples.length * 0.4));
  const half = Math.floor(warm.length / 2);
  const windowOf = (name: keyof Usage, part: Usage[]) => median(part.map((each) => each[name]));
  const growth = (name: keyof Usage) =>
    windowOf(name, warm.slice(half)) - windowOf(name, warm.slice(0, half));
  const [first, last] = [warm[0] as Usage, warm.at(-1) as Usage];
  console.log(
    `${what}: fds ${growth('fds')}, threads ${growth('threads')}, maps ${growth('maps')}, ` +
      `rss ${growth('rss') / 1024} KiB (from ${first.rss >> 10} to ${last.rss >> 10} KiB, ` +
      `${last.fds} fds, ${last.threads} threads, ${last.maps} maps)`,
  );
  expect(growth('fds')).toBe(0);
  expect(growth('threads')).toBe(0);
  if (!MEMORY_TELLS) return;
  // The halves are 0.3 of all lives apart: what each life left would be hundreds. An arena of malloc's that
  // is made late is two mappings.
  expect(growth('maps')).toBeLessThanOrEqual(8);
  expect(growth('rss')).toBeLessThan(MiB(3));
}
