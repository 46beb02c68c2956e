import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MiB } from '../../../lib/units.js';
import { SLOWDOWN } from '../support/host.js';
import { answerOf, compile, MEMORY_TELLS, removeCompiled, runChild } from './compiled.js';

/** `KVMSNAP_CYCLES=10000` is what a release is tested with. */
const CYCLES = Number(process.env.KVMSNAP_CYCLES ?? 1000 / SLOWDOWN);

interface Usage {
  fds: number;
  threads: number;
  maps: number;
  rss: number;
}

const median = (values: number[]): number =>
  values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] as number;

describe('what machines leave behind', () => {
  let compiled: string;
  beforeAll(() => {
    compiled = compile();
  });
  afterAll(() => removeCompiled(compiled));

  it.each([
    { kind: 'bare', count: CYCLES },
    { kind: 'irqchip', count: Math.max(50, Math.ceil(CYCLES / 20)) },
    { kind: 'restore', count: Math.max(50, Math.ceil(CYCLES / 5)) },
  ])(
    '$count times create, run, close ($kind): nothing',
    async ({ kind, count }) => {
      const limit = (60_000 + 60 * count) * SLOWDOWN;
      const samples = answerOf<Usage[]>(await runChild(compiled, 'cycles', [kind, count], limit));
      expect(samples.length).toBeGreaterThanOrEqual(25);
      // The first part warms up caches: V8's heap, malloc's arenas, glibc's thread stacks.
      const warm = samples.slice(Math.floor(samples.length * 0.4));
      const half = Math.floor(warm.length / 2);
      const windowOf = (name: keyof Usage, part: Usage[]) => median(part.map((each) => each[name]));
      const growth = (name: keyof Usage) =>
        windowOf(name, warm.slice(half)) - windowOf(name, warm.slice(0, half));
      console.log(
        `${kind} ${count}: fds ${growth('fds')}, threads ${growth('threads')}, ` +
          `maps ${growth('maps')}, rss ${growth('rss') / 1024} KiB`,
      );
      expect(growth('fds')).toBe(0);
      expect(growth('threads')).toBe(0);
      if (!MEMORY_TELLS) return;
      expect(growth('maps')).toBeLessThanOrEqual(4);
      expect(growth('rss')).toBeLessThan(MiB(3));
    },
    (120_000 + 60 * CYCLES) * SLOWDOWN,
  );
});
