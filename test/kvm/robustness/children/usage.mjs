// What this process uses of what could leak.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

export function usage() {
  return {
    fds: readdirSync('/proc/self/fd').length,
    threads: readdirSync('/proc/self/task').length,
    maps: readFileSync('/proc/self/maps', 'latin1').split('\n').length,
    ours: readdirSync('/proc/self/fd').filter(isOurs).length,
    rss: process.memoryUsage.rss(),
  };
}

/** Threads that have said goodbye take a moment to be gone. */
export async function settled(goal) {
  for (let tries = 0; tries < 3000; tries++) {
    globalThis.gc();
    await sleep(5);
    const now = usage();
    if (!goal || (now.ours <= goal.ours && now.threads <= goal.threads)) return now;
  }
  return usage();
}

/**
 * Opened by the addon: KVM's, guest memory, and the files called `part`. Node leaves a FileHandle open
 * when its worker is terminated in the middle of a write or fsync.
 */
function isOurs(fd) {
  try {
    return /kvm-v|^\/memfd:|\/part\b/.test(readlinkSync(`/proc/self/fd/${fd}`));
  } catch {
    return false;
  }
}
