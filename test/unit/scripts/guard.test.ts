/** What runs the tests leaves no process and no file, however it ends. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { scratch } from '../snapshot/scratch.js';

const GUARD = join(import.meta.dirname, '../../../scripts/test/guard.mjs');

/** Starts processes of each kind that tests start, says so, and waits for ever or ends. */
const command = (ends: boolean): string => `
  sleep 1000 &
  setsid sleep 1000 &
  (setsid sh -c 'trap "" TERM INT HUP; sleep 1000; :' &)
  touch "$TMPDIR/file"
  echo "$TMPDIR"
  ${ends ? 'exit 7' : 'wait'}`;

const script = (ends: boolean): string => `
  import { guarded } from ${JSON.stringify(GUARD)};
  const status = await guarded((_, run) => run('sh', ['-c', ${JSON.stringify(command(ends))}]));
  console.log('status', status);`;

/** Ids of living processes with that temporary directory. */
function processesOf(temporary: string): string[] {
  return readdirSync('/proc').filter((pid) => {
    try {
      const variables = readFileSync(`/proc/${pid}/environ`, 'latin1').split('\0');
      return variables.includes(`TMPDIR=${temporary}`);
    } catch {
      return false;
    }
  });
}

let child: ChildProcess | undefined;
afterEach(() => void child?.kill('SIGKILL'));

async function start(ends: boolean): Promise<{ temporary: string; rest: () => string }> {
  child = spawn(process.execPath, ['--input-type=module', '-e', script(ends)], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, TMPDIR: scratch() },
  });
  let text = '';
  child.stdout?.on('data', (data) => (text += data));
  await expect.poll(() => text, { timeout: 30_000 }).toContain('\n');
  return { temporary: text.split('\n')[0] as string, rest: () => text };
}

async function expectNothing(temporary: string): Promise<void> {
  await expect.poll(() => processesOf(temporary), { timeout: 30_000 }).toEqual([]);
  await expect.poll(() => existsSync(join(temporary, '..')), { timeout: 30_000 }).toBe(false);
}

describe('the guard of tests', { timeout: 60_000 }, () => {
  it.each(['SIGTERM', 'SIGINT', 'SIGKILL'] as const)('leaves nothing at %s', async (signal) => {
    const { temporary } = await start(false);
    await expect.poll(() => processesOf(temporary).length, { timeout: 30_000 }).toBeGreaterThan(3);
    const exited = once(child as ChildProcess, 'exit');
    child?.kill(signal);
    const codes = { SIGTERM: 143, SIGINT: 130, SIGKILL: null };
    expect((await exited)[0]).toBe(codes[signal]);
    await expectNothing(temporary);
  });

  it('leaves nothing of a command that ends, and gives its status', async () => {
    const { temporary, rest } = await start(true);
    await once(child as ChildProcess, 'close');
    expect(rest()).toContain('status 7');
    await expectNothing(temporary);
  });
});
