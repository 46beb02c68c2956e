import { expect, it } from 'vitest';
import { answerOf, compile, removeCompiled, runChild } from './compiled.js';

it('what JavaScript has forgotten is closed and collected; a running machine runs to its end', async () => {
  const compiled = compile();
  try {
    const { problems } = answerOf<{ problems: string[] }>(await runChild(compiled, 'forgotten'));
    expect(problems).toEqual([]);
  } finally {
    removeCompiled(compiled);
  }
});
