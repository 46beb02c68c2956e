import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import { KvmsnapError } from '../../errors.js';
import { MachineClient } from '../control/client.js';
import { type FoundMachine, findMachine } from '../control/registry.js';
import { withJson } from '../options.js';
import { print, printJson } from '../output.js';
import { parseName } from '../values.js';

/** How long `--kill` waits for the host process to end the machine before it ends the process. */
const KILL_MS = 3000;
const GONE_MS = 5000;

export function addStop(program: Command): void {
  const command = program
    .command('stop')
    .summary('end a named machine')
    .description(
      'Ends a named machine: the guest is not asked, and what is not in a snapshot is lost.',
    )
    .argument('<name>', 'name of the machine', parseName)
    .option('--kill', 'also when it cannot be paused, or its host process does not answer');
  withJson(command).action(async (name: string, options: { kill?: boolean; json?: boolean }) => {
    const machine = await findMachine(name);
    if (options.kill) await kill(name, machine);
    else await stop(name, false);
    await gone(name);
    if (options.json) printJson({ name, status: 'closed' });
    else print(`${name} is stopped`);
  });
}

async function stop(name: string, kill: boolean): Promise<void> {
  using client = await MachineClient.connect(name);
  await client.stop(kill);
  await client.stopped;
}

async function kill(name: string, { pid }: FoundMachine): Promise<void> {
  const timeout = sleep(KILL_MS, 'timeout', { ref: false });
  const outcome = await Promise.race([
    stop(name, true).then(
      () => 'stopped',
      () => 'failed',
    ),
    timeout,
  ]);
  if (outcome === 'stopped') return;
  if (pid === undefined) {
    throw new KvmsnapError(
      'ERR_CONTROL',
      `the host process of ${name} does not answer and is of another PID namespace: kill it there`,
    );
  }
  // Its process id may be another's by now.
  const still = await findMachine(name).catch(() => undefined);
  if (still?.pid === pid) process.kill(pid, 'SIGKILL');
}

/** Until the name is free: whoever starts a machine after `stop` may take it. */
async function gone(name: string): Promise<void> {
  const deadline = performance.now() + GONE_MS;
  for (;;) {
    try {
      await findMachine(name);
    } catch (error) {
      if (error instanceof KvmsnapError && error.code === 'ERR_MACHINE_NAME') return;
      throw error;
    }
    if (performance.now() > deadline) {
      throw new KvmsnapError('ERR_CONTROL', `${name} is still there: try stop --kill`);
    }
    await sleep(20);
  }
}
