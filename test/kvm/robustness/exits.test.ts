import { afterAll, beforeAll, describe, expect, it } from 'vitest';
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
  ])('%s: with its own code, and waits for nothing that never comes', async (how, code) => {
    for (let round = 0; round < 4; round++) {
      // What its machines wait for has no time limit of its own: one that waited for it would be killed.
      const ended = await runChild(compiled, 'exits', [how]);
      expect(ended).toMatchObject({ code, signal: null });
      if (code === 1) expect(ended.stderr).toContain('uncaught on purpose');
      else expect(ended.stderr).toBe('');
    }
  });
});
