// What this process uses of what could leak.
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

export function usage() {
  return {
    fds: readdirSync('/proc/self/fd').length,
    threads: readdirSync('/proc/self/task').length,
    maps: readFileSync('/proc/self/maps', 'latin1').split('\n').length,
    rss: process.memoryUsage.rss(),
  };
}

/** Threads that have said goodbye take a moment to be gone. */
export async function settled(goal) {
  for (let tries = 0; tries < 400; tries++) {
    globalThis.gc();
    await sleep(5);
    const now = usage();
    if (!goal || (now.fds <= goal.fds && now.threads <= goal.threads)) return now;
  }
  return usage();
}
