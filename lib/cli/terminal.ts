/** The user's keyboard as a guest's console: raw bytes, with one key to leave by. */
import type { DetachKey } from './values.js';

export interface Keyboard {
  /** Resolves when the detach key was pressed. */
  readonly detached: Promise<void>;
  /** Gives the terminal back as it was. Idempotent. */
  release(): void;
}

/**
 * Sends what is typed (or piped in) to `write`, one piece at a time. On a terminal every key goes to
 * the guest, Ctrl-C too, except the detach key. The end of a pipe ends nothing.
 */
export function openKeyboard(
  write: (bytes: Buffer) => Promise<void>,
  detachKey: DetachKey | undefined,
): Keyboard {
  const { stdin } = process;
  const isTerminal = stdin.isTTY === true;
  let leave: () => void = () => {};
  const detached = new Promise<void>((resolve) => {
    leave = resolve;
  });
  const onData = (chunk: Buffer): void => {
    const at = isTerminal && detachKey ? chunk.indexOf(detachKey.byte) : -1;
    const bytes = at < 0 ? chunk : chunk.subarray(0, at);
    if (at >= 0) leave();
    if (bytes.length === 0) return;
    stdin.pause();
    // A machine that ends meanwhile says so elsewhere.
    write(bytes).then(
      () => stdin.resume(),
      () => undefined,
    );
  };
  if (isTerminal) stdin.setRawMode(true);
  stdin.on('data', onData);
  // A closed or odd stdin leaves a guest without keyboard, which is no error.
  const onError = (): void => undefined;
  stdin.on('error', onError);
  let released = false;
  const release = (): void => {
    if (released) return;
    released = true;
    stdin.off('data', onData);
    stdin.pause();
    if (isTerminal) stdin.setRawMode(false);
    stdin.unref?.();
    process.off('exit', release);
  };
  // Whatever ends this process, the terminal is usable after it.
  process.on('exit', release);
  return { detached, release };
}
