import { afterAll, beforeAll, describe, it } from 'vitest';
import { hangLimit, SLOWDOWN } from '../support/host.js';
import { answerOf, compile, removeCompiled, runChild } from './compiled.js';
import { expectFlat, type Usage } from './growth.js';

/** `KVMSNAP_CYCLES=10000` is what a release is tested with. */
const CYCLES = Number(process.env.KVMSNAP_CYCLES ?? 1000 / SLOWDOWN);

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
      const limit = hangLimit(count, 60);
      const samples = answerOf<Usage[]>(await runChild(compiled, 'cycles', [kind, count], limit));
      expectFlat(`${kind} ${count}`, samples);
    },
    2 * hangLimit(CYCLES, 60),
  );
});
