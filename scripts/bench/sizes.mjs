// Sizes of guest memory: as the command line has them, and whether this host can bear them.
import { readFileSync } from 'node:fs';

const LEAST_MIB = 32;
const MOST_MIB = 8192;

/** MiB of `256`, `256M`, `256MiB`, `1G`, `1GiB`; `undefined` if it is none or out of bounds. */
export function parseSize(text) {
  const match = /^(\d{1,5})(?:(M|G)(?:iB)?)?$/.exec(text);
  if (!match) return undefined;
  const mib = Number(match[1]) * (match[2] === 'G' ? 1024 : 1);
  return mib >= LEAST_MIB && mib <= MOST_MIB ? mib : undefined;
}

export const formatSize = (mib) => (mib % 1024 === 0 ? `${mib / 1024} GiB` : `${mib} MiB`);

export const SIZES_ALLOWED = `${LEAST_MIB}M to ${MOST_MIB / 1024}G`;

/**
 * What one machine of that size takes at worst, with what it is measured beside: an image, and as much
 * again that a guest writes while its memory is the image's. Files in the page cache give way.
 */
export const neededMiB = (mib) => Math.ceil(mib * 2.5) + 512;

/** MiB that the kernel says programs may have without swapping. */
export function availableMiB(meminfo = readFileSync('/proc/meminfo', 'utf8')) {
  const match = /^MemAvailable:\s+(\d+) kB$/m.exec(meminfo);
  if (!match) throw new Error('/proc/meminfo has no MemAvailable');
  return Math.floor(Number(match[1]) / 1024);
}
