// What this process uses of what could leak.
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

export function usage() {
  return {
    fds: readdirSync('/proc/self/fd').length,
    threads: readdirSync('/proc/self/task').length,
    maps: readFileSync('/proc/self/maps', 'latin1').split('\n').length,
    ours: oursBeside(KEPT).length,
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

/** The VM that a process keeps from its second machine on (native/vmm/kept_vm.h). */
const KEPT = ['anon_inode:kvm-vm', 'anon_inode:kvm-vcpu:0'];

/** Ours, less one of each of those. */
function oursBeside(kept) {
  const links = readdirSync('/proc/self/fd').map(linkOf).filter(isOurs);
  for (const link of kept) {
    const at = links.indexOf(link);
    if (at >= 0) links.splice(at, 1);
  }
  return links;
}

function linkOf(fd) {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    // The directory's own, which is closed again.
    return '';
  }
}

/**
 * Opened by the addon: KVM's, guest memory, and the files called `part`. Node leaves a FileHandle open
 * when its worker is terminated in the middle of a write or fsync.
 */
const isOurs = (link) => /kvm-v|^\/memfd:|\/part\b/.test(link);
