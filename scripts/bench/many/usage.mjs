// What this process holds, as the kernel counts it.
import { readdirSync, readFileSync } from 'node:fs';

/** KiB: a page that n processes or mappings share counts 1 / n in each. */
export function pssKiB(rollup = readFileSync('/proc/self/smaps_rollup', 'utf8')) {
  const match = /^Pss:\s+(\d+) kB$/m.exec(rollup);
  if (!match) throw new Error('/proc/self/smaps_rollup has no Pss');
  return Number(match[1]);
}

const entries = (directory) => readdirSync(directory).length;

/** File descriptors, threads and mappings. */
export const counts = () => ({
  fds: entries('/proc/self/fd'),
  threads: entries('/proc/self/task'),
  maps: readFileSync('/proc/self/maps', 'utf8').trim().split('\n').length,
});

/** How many more descriptors may be opened. */
export function freeDescriptors(limits = readFileSync('/proc/self/limits', 'utf8')) {
  const match = /^Max open files\s+(\d+|unlimited)/m.exec(limits);
  if (!match || match[1] === 'unlimited') return Number.POSITIVE_INFINITY;
  return Number(match[1]) - entries('/proc/self/fd');
}
