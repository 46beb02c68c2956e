/** How long a call holds the event loop, in processor time: other work beside it does not count. */
import { readFileSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';

export interface Cost<T> {
  result: T;
  /** The most processor time between two turns of the event loop, in milliseconds. */
  heldMs: number;
  turns: number;
  /** Bytes that this process has read meanwhile, by whatever system call. */
  readBytes: number;
}

/** Of this thread, user and system: `/proc/thread-self/schedstat` counts nanoseconds. */
const threadMs = (): number =>
  Number(readFileSync('/proc/thread-self/schedstat', 'latin1').split(' ')[0]) / 1e6;

const bytesRead = (): number =>
  Number(/^rchar: (\d+)/m.exec(readFileSync('/proc/self/io', 'latin1'))?.[1]);

export async function costOf<T>(call: () => Promise<T>): Promise<Cost<T>> {
  let done = false;
  let heldMs = 0;
  let turns = 0;
  const watch = async (): Promise<void> => {
    for (let before = threadMs(); !done; turns++) {
      await nextTurn();
      const now = threadMs();
      heldMs = Math.max(heldMs, now - before);
      before = now;
    }
  };
  const watching = watch();
  const before = bytesRead();
  try {
    const result = await call();
    return { result, heldMs, turns, readBytes: bytesRead() - before };
  } finally {
    done = true;
    await watching;
  }
}
