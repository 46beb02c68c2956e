/**
 * The process that hosts a named machine: `launch.ts` starts it, detached from terminal and session.
 * It says once, over its IPC channel, whether the machine is there, and then lives as long as the
 * machine does. What it prints goes to the machine's log.
 */
import { z } from 'zod';
import { signalExitCode } from '../exit-codes.js';
import { print, printable } from '../output.js';
import { describeSpec, makeVm, specSchema } from '../spec.js';
import { stopProblem } from '../stop.js';
import { MACHINE_NAME } from '../values.js';
import { HostedMachine } from './hosted.js';
import { checkMessage, packError } from './protocol.js';
import { claimName, type NameClaim } from './registry.js';
import { ControlServer } from './server.js';

const launchSchema = z.strictObject({
  name: z.string().regex(MACHINE_NAME),
  spec: specSchema,
  /** Copy what the guest writes to port 0xE9 to the log. */
  debugOutput: z.boolean(),
});
export type LaunchRequest = z.input<typeof launchSchema>;
export type LaunchAnswer =
  | { ok: true; pid: number }
  | { ok: false; error: ReturnType<typeof packError> };

/** Runs in the host process; resolves when the machine is gone. */
export async function hostMachine(message: unknown): Promise<void> {
  let claim: NameClaim | undefined;
  try {
    const { name, spec, debugOutput } = checkMessage(launchSchema, message);
    process.title = `kvmsnap: ${name}`;
    claim = await claimName(name);
    const vm = await makeVm(spec);
    if (debugOutput) vm.debug.pipe(process.stdout);
    const machine = new HostedMachine(name, describeSpec(spec), vm);
    const server = await ControlServer.listen(machine, claim.socket);
    endOnSignals(machine);
    log(printable(`${name}: ${describeSpec(spec)}`));
    answer({ ok: true, pid: process.pid });
    const stop = await machine.ended;
    log(`ended: ${stop.reason}${stop.code === undefined ? '' : ` ${stop.code}`}`);
    const problem = stopProblem(stop);
    if (problem) log(printable(problem));
    // The name is free before anyone hears of the end.
    await claim.release();
    await server.close();
  } catch (error) {
    log((error as Error).stack ?? String(error));
    await claim?.release();
    answer({ ok: false, error: packError(error) });
    process.exitCode = 1;
  }
}

/** The launcher may be gone by now: that is no reason to end. */
function answer(message: LaunchAnswer): void {
  if (!process.connected) return;
  process.send?.(message, undefined, {}, () => {
    if (process.connected) process.disconnect();
  });
}

function endOnSignals(machine: HostedMachine): void {
  for (const signal of ['SIGTERM', 'SIGINT'] as const) {
    process.on(signal, () => {
      log(`ended by ${signal}`);
      process.exitCode = signalExitCode(signal);
      machine.close();
    });
  }
  // A terminal that closes takes its clients along, not the machine.
  process.on('SIGHUP', () => log('SIGHUP ignored'));
}

function log(text: string): void {
  print(`${new Date().toISOString()} ${text}`);
}
