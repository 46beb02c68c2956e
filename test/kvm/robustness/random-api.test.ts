/** All that the library can be asked for, at random and at once: each call settles, and nothing is left. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { HANG_MS, hangLimit } from '../support/host.js';
import { answerOf, compile, removeCompiled, runChild } from './compiled.js';

/** Calls, or a little more. */
const STEPS = Number(process.env.KVMSNAP_API_STEPS ?? 800);
/** What a failure printed. One episode (80 steps) is enough to see it again. */
const SEED = Number((process.env.KVMSNAP_SEED ?? '').split(' ')[0] || Date.now() % 2 ** 31);

let compiled: string;
beforeAll(() => {
  compiled = compile();
});
afterAll(() => removeCompiled(compiled));

it(
  `${STEPS} random calls, from seed ${SEED} on: all settle, each refusal has a code, nothing leaks`,
  async () => {
    const limit = hangLimit(STEPS, 100);
    const child = await runChild(compiled, 'random-api', [SEED, STEPS, HANG_MS / 2], limit);
    const { calls, outcomes } = answerOf<{ calls: number; outcomes: Record<string, number> }>(
      child,
    );
    console.log(`${calls} calls: ${JSON.stringify(outcomes)}`);
    // Most of an episode is in states in which something can be done.
    expect(outcomes.fine).toBeGreaterThan(calls / 3);
  },
  2 * hangLimit(STEPS, 100),
);
