/** Terminal and machine joined until one of them leaves. */
import type { Readable } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { Vm } from '../vm/vm.js';
import type { MachineClient } from './control/client.js';
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

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

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
  const signals = watchSignals();
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
      signals.received,
    ]);
  } finally {
    console.output.unpipe(to);
    signals.release();
    keyboard.release();
  }
}

function watchSignals(): { received: Promise<SessionEnd>; release(): void } {
  let receive: (end: SessionEnd) => void = () => {};
  const received = new Promise<SessionEnd>((resolve) => {
    receive = resolve;
  });
  const onSignal = (signal: NodeJS.Signals): void => receive({ kind: 'signal', signal });
  for (const signal of SIGNALS) process.on(signal, onSignal);
  return {
    received,
    release() {
      for (const signal of SIGNALS) process.off(signal, onSignal);
    },
  };
}
