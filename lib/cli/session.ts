/** Terminal and machine joined until one of them leaves. */
import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { Vm } from '../vm/vm.js';
import type { MachineClient } from './control/client.js';
import { onSignal } from './ending.js';
import { describeStop, type Stop } from './stop.js';
import { openKeyboard } from './terminal.js';
import type { DetachKey } from './values.js';

/** A machine's console, here or in another process. */
export interface Console {
  /** Ends when the machine is gone. */
  readonly output: Readable;
  readonly stopped: Promise<Stop>;
  input(bytes: Buffer): Promise<void>;
}

export type SessionEnd =
  | { kind: 'stopped'; stop: Stop }
  | { kind: 'detached' }
  | { kind: 'signal'; signal: NodeJS.Signals };

/** A machine of this process. It is closed when its guest ends. */
export function localConsole(vm: Vm): Console {
  return {
    output: vm.console,
    stopped: vm.wait().then(async (stop) => {
      await vm.close();
      return describeStop(stop);
    }),
    input: (bytes) =>
      new Promise((resolve, reject) => {
        vm.console.write(bytes, (error) => (error ? reject(error) : resolve()));
      }),
  };
}

export const remoteConsole = (client: MachineClient): Console => ({
  output: client.output,
  stopped: client.stopped,
  input: (bytes) => client.input(bytes),
});

export interface SessionOptions {
  detachKey: DetachKey | undefined;
  /** Where console output goes. */
  to: NodeJS.WriteStream;
  /** Called when the terminal is joined: starts the machine, so that nothing is missed. */
  start?: () => Promise<void>;
}

/** Resolves when the guest ended and all it printed was taken, or the user left. */
export async function runSession(console: Console, options: SessionOptions): Promise<SessionEnd> {
  const { to, detachKey } = options;
  const keyboard = openKeyboard((bytes) => console.input(bytes), detachKey);
  let interrupt: (end: SessionEnd) => void = () => {};
  const interrupted = new Promise<SessionEnd>((resolve) => {
    interrupt = resolve;
  });
  using _ = onSignal((signal) => interrupt({ kind: 'signal', signal }));
  try {
    console.output.pipe(to, { end: false });
    const drained = finished(console.output, { writable: false }).catch(() => undefined);
    const stopped = console.stopped.then(async (stop): Promise<SessionEnd> => {
      await drained;
      return { kind: 'stopped', stop };
    });
    stopped.catch(() => undefined);
    await options.start?.();
    return await Promise.race([
      stopped,
      keyboard.detached.then((): SessionEnd => ({ kind: 'detached' })),
      interrupted,
    ]);
  } finally {
    console.output.unpipe(to);
    keyboard.release();
  }
}
