/** Ctrl-C gives 130, whenever it comes and whatever else happens then. */
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { constants } from 'node:os';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { rounds } from '../support/host.js';
import { CommandLine, printed } from './command.js';

let kvmsnap: CommandLine;
beforeEach(async () => {
  kvmsnap = new CommandLine();
  const run = ['run', '--guest', 'counter', '--no-irqchip', '--memory', '16M', '--detach'];
  await kvmsnap.json(...run, '--name', 'one');
});
afterEach(() => kvmsnap.clean());

/** What a shell gives: a process that ends by a signal before it could take it counts the same. */
async function shellCode(child: ChildProcess): Promise<number> {
  const [code, signal] = (await once(child, 'close')) as [number | null, NodeJS.Signals | null];
  return code ?? 128 + constants.signals[signal as NodeJS.Signals];
}

const LONG = [
  ['dirty', 'one', '--every', '0', '--csv'],
  ['dirty', 'one', '--every', '10ms', '--json'],
  ['console', 'one'],
  ['run', '--guest', 'counter', '--memory', '16M'],
];

describe('a command that is interrupted', () => {
  it.each(LONG)('%s %s %s %s at any instant ends with 130', async (...args) => {
    for (let round = 0; round < rounds(4); round++) {
      const children = Array.from({ length: 2 }, () => kvmsnap.start(args.filter(Boolean)));
      const codes = await Promise.all(
        children.map(async (child) => {
          child.stdout?.resume();
          child.stderr?.resume();
          await sleep(Math.random() * 1200);
          const ended = shellCode(child);
          child.kill('SIGINT');
          return ended;
        }),
      );
      expect(codes).toEqual([130, 130]);
    }
  });

  it('ends with 130 though its reader leaves at the same time', async () => {
    for (let round = 0; round < rounds(6); round++) {
      const child = kvmsnap.start(['dirty', 'one', '--every', '0', '--csv']);
      await printed(child, /\n.*\n.*\n/);
      const ended = shellCode(child);
      child.kill('SIGINT');
      child.stdout?.destroy();
      expect(await ended).toBe(130);
    }
  });

  it('ends well when only its reader has left', async () => {
    const child = kvmsnap.start(['dirty', 'one', '--every', '0', '--csv']);
    await printed(child, /\n.*\n.*\n/);
    const ended = shellCode(child);
    child.stdout?.destroy();
    expect(await ended).toBe(0);
  });

  it('ends at the second Ctrl-C though nobody takes its output', async () => {
    const child = kvmsnap.start(['dirty', 'one', '--every', '0', '--csv']);
    await printed(child, /\n.*\n/);
    child.stdout?.pause();
    const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
    // Until the pipe is full the first is enough.
    while (child.exitCode === null && child.signalCode === null) {
      child.kill('SIGINT');
      await sleep(200);
    }
    expect(await ended).toBe(130);
  });
});
