/** Running a new machine: in this process, or in one of its own under a name. */
import { requireArgument } from '../errors.js';
import { nativeBinding } from '../native/load.js';
import type { Vm } from '../vm/vm.js';
import { MachineClient } from './control/client.js';
import { launchMachine } from './control/launch.js';
import { EXIT, signalExitCode } from './exit-codes.js';
import type { HostingOptions } from './options.js';
import { endLine, note, print, printable, printJson } from './output.js';
import { localConsole, remoteConsole, runSession, type SessionEnd } from './session.js';
import { type MachineSpecText, makeVm, specSchema } from './spec.js';
import { stopExitCode, stopProblem } from './stop.js';
import type { DetachKey } from './values.js';

/** Gives the exit code. `atEnd` gets a machine of this process before that is gone. */
export async function hostMachine(
  spec: MachineSpecText,
  options: HostingOptions,
  atEnd?: (vm: Vm) => Promise<void>,
): Promise<number> {
  requireArgument(
    options.name !== undefined || !options.detach,
    '--detach needs --name: a machine without a name lives in this process',
  );
  requireArgument(!options.paused || options.detach, '--paused goes with --detach');
  return options.name === undefined
    ? runHere(spec, options, atEnd)
    : runNamed(options.name, spec, options);
}

async function runHere(
  text: MachineSpecText,
  options: HostingOptions,
  atEnd?: (vm: Vm) => Promise<void>,
): Promise<number> {
  const { detachKey, json = false } = options;
  nativeBinding().sealProcess();
  await using vm = await makeVm(specSchema.parse(text));
  if (options.debugOutput) vm.debug.pipe(process.stderr, { end: false });
  tellKey(detachKey, 'ends the machine');
  const end = await runSession(localConsole(vm), {
    detachKey,
    to: json ? process.stderr : process.stdout,
    start: () => vm.start(),
  });
  await atEnd?.(vm);
  if (end.kind !== 'stopped') await vm.close();
  return finish(end, 'the machine was ended', json);
}

async function runNamed(
  name: string,
  spec: MachineSpecText,
  options: HostingOptions,
): Promise<number> {
  const { detach = false, paused = false, json = false } = options;
  const pid = await launchMachine({ name, spec, debugOutput: options.debugOutput ?? false });
  using client = await MachineClient.connect(name);
  if (!detach) {
    // Awaited here: the connection lasts as long as this scope.
    return await attachTo(name, client, options, () => client.resume());
  }
  if (!paused) await client.resume();
  if (json) printJson({ name, pid, status: (await client.status()).status });
  else print(printable(name));
  return EXIT.ok;
}

/** Joins the terminal to a named machine until it ends or the user leaves. */
export async function attachTo(
  name: string,
  client: MachineClient,
  { detachKey, json = false }: { detachKey: DetachKey | undefined; json?: boolean },
  start?: () => Promise<void>,
): Promise<number> {
  tellKey(detachKey, `leaves ${name} running`);
  const end = await runSession(remoteConsole(client), {
    detachKey,
    to: json ? process.stderr : process.stdout,
    start: async () => {
      await client.attach();
      await start?.();
    },
  });
  return finish(end, `left ${name}; \`kvmsnap console ${name}\` comes back to it`, json);
}

function tellKey(detachKey: DetachKey | undefined, what: string): void {
  if (detachKey && process.stdin.isTTY && process.stderr.isTTY) note(`${detachKey.label} ${what}`);
}

function finish(end: SessionEnd, left: string, json: boolean): number {
  if (end.kind === 'signal') return signalExitCode(end.signal);
  if (end.kind === 'detached') {
    // The guest's last line has hardly ever an end.
    endLine();
    note(left);
    if (json) printJson({ detached: true });
    return EXIT.ok;
  }
  const problem = stopProblem(end.stop);
  if (problem) note(problem);
  const exitCode = stopExitCode(end.stop);
  if (json) printJson({ stop: end.stop, exitCode });
  return exitCode;
}

/** Calls `work` with a connection to a named machine. */
export async function withMachine<T>(
  name: string,
  work: (client: MachineClient) => Promise<T>,
): Promise<T> {
  using client = await MachineClient.connect(name);
  return await work(client);
}
