import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { failedTests, reportRounds } from '../../../scripts/test/rounds.mjs';

const SCRIPT = fileURLToPath(new URL('../../../scripts/test/under-load.mjs', import.meta.url));

/** Starts it; gives its output once `pattern` is in it, and its end. */
function start(...args: string[]) {
  const child = spawn(process.execPath, [SCRIPT, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      output += data;
    });
  }
  const ended = once(child, 'close').then(([code, signal]) => ({ code: code ?? signal, output }));
  const printed = async (pattern: RegExp): Promise<RegExpExecArray> => {
    for (;;) {
      const match = pattern.exec(output);
      if (match) return match;
      await Promise.race([once(child.stdout, 'data'), once(child.stderr, 'data')]);
    }
  };
  return { child, ended, printed };
}

describe('rounds under load', () => {
  test('each failed test is named with the rounds in which it failed, most often first', () => {
    const text = reportRounds([['a: one'], [], ['b: two', 'a: one']]);
    expect(text).toBe(
      'FAILED in round 1, 3: a: one\nFAILED in round 3: b: two\n1 of 3 rounds without a failed test\n',
    );
  });

  test('a file that cannot be loaded is named as a whole', () => {
    const results = [
      { name: '/r/a', status: 'failed', assertionResults: [] },
      {
        name: '/r/b',
        status: 'failed',
        assertionResults: [
          { status: 'failed', fullName: 'x y' },
          { status: 'passed', fullName: 'z' },
        ],
      },
      { name: '/r/c', status: 'passed', assertionResults: [] },
    ];
    expect(failedTests(results, (name) => name.slice(3))).toEqual(['a', 'b: x y']);
  });

  test('a command runs so many times, and is judged by its exit status', async () => {
    const good = start('--rounds', '2', '--loops', '1', '--', 'echo', 'here');
    const { code, output } = await good.ended;
    expect(code).toBe(0);
    expect(output.match(/^here$/gm)).toHaveLength(2);
    expect(output).toContain('2 of 2 rounds without a failed test');
    const script = 'echo FAILED a test; exit 1';
    const bad = await start('--rounds', '1', '--loops', '0', '--', 'sh', '-c', script).ended;
    expect(bad.code).toBe(1);
    expect(bad.output).toContain('FAILED in round 1: a test\n0 of 1 rounds');
  });

  test.each(['SIGKILL', 'SIGTERM'] as const)('%s leaves no busy loop behind', async (signal) => {
    const script = 'echo started; exec sleep 60';
    const load = start('--rounds', '1', '--loops', '3', '--', 'sh', '-c', script);
    await load.printed(/^started$/m);
    const { pid } = load.child;
    // The loops are threads of the script, which the kernel ends with it.
    expect(readdirSync(`/proc/${pid}/task`).length).toBeGreaterThan(3);
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim();
    load.child.kill(signal);
    if (signal === 'SIGKILL') process.kill(Number(children), 'SIGTERM');
    expect((await load.ended).code).toBe(signal === 'SIGKILL' ? 'SIGKILL' : 1);
    expect(() => readdirSync(`/proc/${pid}/task`)).toThrow(/ENOENT/);
  });
});
