import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { hangLimit } from '../support/host.js';
import { answerOf, compile, MEMORY_TELLS, removeCompiled, runChild } from './compiled.js';

/** Each of the ways to end comes once. */
const ROUNDS = Number(process.env.KVMSNAP_WORKER_ROUNDS ?? 5);

interface Left {
  before: { ours: number; threads: number; maps: number };
  after: { ours: number; threads: number; maps: number };
}

describe('a worker that ends', () => {
  let compiled: string;
  beforeAll(() => {
    compiled = compile();
  });
  afterAll(() => removeCompiled(compiled));

  it.each([
    'create',
    'createMany',
    'close',
    'running',
    'runningUnrefd',
    'pause',
    'snapshot',
    'restore',
    'onDemand',
    'onDemandBusy',
    'runVcpu',
    'memory',
    'claim',
    'claimBusy',
    'imageWrite',
    'digest',
  ])(
    'in the middle of %s: the process lives on, and nothing is left',
    async (operation) => {
      const { before, after } = answerOf<Left>(
        await runChild(compiled, 'workers', [operation, ROUNDS], hangLimit(ROUNDS, 1000)),
      );
      expect(after.threads).toBeLessThanOrEqual(before.threads);
      expect(after.ours).toBe(0);
      expect(before.ours).toBe(0);
      if (!MEMORY_TELLS) return;
      // V8 and glibc keep some of a worker's; a machine of each round would be 6 or more.
      expect(after.maps - before.maps).toBeLessThan(20 + 3 * ROUNDS);
    },
    2 * hangLimit(ROUNDS, 1000),
  );
});
