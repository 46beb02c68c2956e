import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SLOWDOWN } from '../support/host.js';
import { compile, removeCompiled, runChild } from './compiled.js';

describe('a process that ends with machines running', () => {
  let compiled: string;
  beforeAll(() => {
    compiled = compile();
  });
  afterAll(() => removeCompiled(compiled));

  it.each([
    ['exit', 5],
    ['exit while hashing', 5],
    ['exit while creating', 5],
    ['exit while closing', 5],
    ['unref', 5],
    ['throw', 1],
    ['reject', 1],
  ])('%s: with its own code, at once', async (how, code) => {
    for (let round = 0; round < 4; round++) {
      const ended = await runChild(compiled, 'exits', [how], 20_000 * SLOWDOWN);
      expect(ended).toMatchObject({ code, signal: null });
      if (code === 1) expect(ended.stderr).toContain('uncaught on purpose');
      else expect(ended.stderr).toBe('');
      expect(ended.endMs).toBeLessThan(2000 * SLOWDOWN);
    }
  });
});
