/** Work that the addon does at once, on this thread, and the event loop's other work. */
import { setImmediate as nextTurn } from 'node:timers/promises';

/** Milliseconds of such work after which others get their turn. */
const MOST_MS = 4;

let spent = 0;

/**
 * Calls `work`, which does most of what it does before it returns. A loop that awaits nothing else would
 * keep timers and I/O waiting: after some milliseconds the event loop turns first.
 */
export async function inTurn<T>(work: () => T | Promise<T>): Promise<T> {
  if (spent > MOST_MS) {
    spent = 0;
    await nextTurn();
  }
  const start = performance.now();
  try {
    return work();
  } finally {
    spent += performance.now() - start;
  }
}
