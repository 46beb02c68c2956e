/**
 * How the process of a command ends: the one place that decides its exit code. A signal that came first
 * decides, whatever else comes of the command then: an error, a reader that has left, an end in due course.
 */
import { EXIT, signalExitCode } from './exit-codes.js';

/** Ends every command. SIGHUP does so by itself, unless a command wants to know. */
const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
const WITH_TERMINAL = 'SIGHUP';

type OnSignal = (signal: NodeJS.Signals) => void;

let received: NodeJS.Signals | undefined;
const handlers: OnSignal[] = [];

/** Called once, before anything else is done. */
export function watchSignals(): void {
  for (const signal of SIGNALS) process.on(signal, take);
}

function take(signal: NodeJS.Signals): void {
  const isFirst = received === undefined;
  received ??= signal;
  const handler = handlers.at(-1);
  // Whoever asks twice does not want to wait.
  if (handler === undefined || !isFirst) process.exit(signalExitCode(received));
  handler(signal);
}

/**
 * Tells a command of the first signal, so that it can end as it wants: the exit code is that of the
 * signal. A signal that came before it asked has ended the process already.
 */
export function onSignal(handler: OnSignal): Disposable {
  if (handlers.length === 0) process.on(WITH_TERMINAL, take);
  handlers.push(handler);
  return {
    [Symbol.dispose]() {
      const at = handlers.indexOf(handler);
      if (at >= 0) handlers.splice(at, 1);
      if (handlers.length === 0) process.off(WITH_TERMINAL, take);
    },
  };
}

/** Whether a signal has ended the command: what fails then is a consequence. */
export const wasInterrupted = (): boolean => received !== undefined;

/** Ends the process. */
export async function end(code: number): Promise<never> {
  // A signal that was sent before is taken from its pipe in the next turn of the event loop: Ctrl-C
  // ends a reader of ours as well, and that it is gone may be seen first.
  for (let turn = 0; turn < 2; turn++) await new Promise(setImmediate);
  // Not left to the event loop: a terminal or pipe at stdin would keep it alive.
  process.exit(received === undefined ? code : signalExitCode(received));
}

/** What a failure to write output means: a reader that has seen enough (`| head`) is none. */
export const writeFailureCode = (error: NodeJS.ErrnoException): number =>
  error.code === 'EPIPE' ? EXIT.ok : EXIT.failure;
