/** What resets, pooled machines and forks leave behind: in the process, and for each other. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { MiB } from '../../../lib/units.js';
import { hangLimit } from '../support/host.js';
import { answerOf, compile, MEMORY_TELLS, removeCompiled, runChild } from './compiled.js';
import { expectFlat, type Usage } from './growth.js';

/** `KVMSNAP_RESETS=1000000 KVMSNAP_POOLED=100000 KVMSNAP_FORKS=1000` is what a release is tested with. */
const RESETS = Number(process.env.KVMSNAP_RESETS ?? 10_000);
const POOLED = Number(process.env.KVMSNAP_POOLED ?? 3000);
const FORKS = Number(process.env.KVMSNAP_FORKS ?? 200);

/** What an idle fork may add to the process, beside what it writes. */
const MOST_PSS_KIB = 150;

let compiled: string;
beforeAll(() => {
  compiled = compile();
});
afterAll(() => removeCompiled(compiled));

describe('lives from one snapshot', () => {
  it.each([
    { kind: 'reset', count: RESETS },
    { kind: 'pool', count: POOLED },
    { kind: 'fork', count: Math.max(1000, Math.ceil(POOLED / 10)) },
  ])(
    '$count by $kind: nothing is left in the process, nor for the next life',
    async ({ kind, count }) => {
      const limit = hangLimit(count, 10);
      const ended = await runChild(compiled, 'lives', [kind, count], limit);
      const answer = answerOf<{ samples: Usage[]; seconds: number; made?: number }>(ended);
      console.log(`${kind} ${count}: ${answer.seconds.toFixed(1)} s`);
      expectFlat(`${kind} ${count}`, answer.samples);
      // The pool's machines came back, all of them: it never had to make another.
      if (answer.made !== undefined) expect(answer.made).toBe(3);
    },
    2 * hangLimit(RESETS + POOLED, 10),
  );
});

it(
  `${FORKS} forks at once of a machine with 256 MiB: each costs little, nothing is left`,
  async () => {
    const limit = hangLimit(FORKS, 200);
    const { before, idle, after, seconds, pssPerFork } = answerOf<{
      before: Usage;
      idle: Usage & { pss: number };
      after: Usage;
      seconds: number;
      pssPerFork: number;
    }>(await runChild(compiled, 'crowd', [FORKS, 256], limit));
    console.log(
      `${FORKS} forks in ${seconds.toFixed(2)} s: ${pssPerFork.toFixed(1)} KiB PSS, ` +
        `${((idle.fds - before.fds) / FORKS).toFixed(1)} fds, ` +
        `${((idle.maps - before.maps) / FORKS).toFixed(1)} maps each; ` +
        `rss ${before.rss >> 10} -> ${idle.rss >> 10} -> ${after.rss >> 10} KiB`,
    );
    // One that waits to be used has no thread.
    expect(idle.threads).toBeLessThan(before.threads + 20);
    expect(after.fds).toBeLessThanOrEqual(before.fds);
    expect(after.threads).toBeLessThanOrEqual(before.threads);
    if (!MEMORY_TELLS) return;
    expect(pssPerFork).toBeLessThan(MOST_PSS_KIB);
    expect(after.maps).toBeLessThanOrEqual(before.maps + 16);
    expect(after.rss).toBeLessThan(before.rss + MiB(16));
  },
  2 * hangLimit(FORKS, 200),
);
