import type { BigIntStats } from 'node:fs';
import { lstat, readdir, readFile, readlink } from 'node:fs/promises';
import { requireArgument } from '../../errors.js';
import { MiB } from '../../units.js';
import { systemError } from '../system-error.js';
import { type CpioEntry, encodeCpio } from './cpio.js';

/** Kernels take no initrd that ends above 2 GiB. */
export const MAX_INITRD = MiB(2047);

const NO_DATA = new Uint8Array(0);
const SLASH = Buffer.from('/');

export interface PackOptions {
  /**
   * `root` (default): every file belongs to uid 0 and gid 0, so that anyone can pack a root file
   * system. `keep`: as on this host.
   */
  owner?: 'root' | 'keep';
}

interface Found {
  /** Relative to the packed directory. */
  name: Buffer;
  path: Buffer;
  stats: BigIntStats;
}

/** `makedev` of Linux backwards (include/linux/kdev_t.h and glibc's gnu_dev_major). */
export const major = (device: bigint): number =>
  Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n));
export const minor = (device: bigint): number =>
  Number((device & 0xffn) | ((device >> 12n) & 0xffffff00n));

/** Parents before children, names in byte order. */
async function walk(path: Buffer, name: Buffer, found: Found[]): Promise<void> {
  const names = await readdir(path, { encoding: 'buffer' });
  for (const child of names.sort(Buffer.compare)) {
    const childPath = Buffer.concat([path, SLASH, child]);
    const childName = name.length > 0 ? Buffer.concat([name, SLASH, child]) : child;
    const stats = await lstat(childPath, { bigint: true });
    found.push({ name: childName, path: childPath, stats });
    if (stats.isDirectory()) await walk(childPath, childName, found);
  }
}

async function contentOf({ path, stats }: Found): Promise<Uint8Array> {
  if (stats.isFile()) return readFile(path);
  if (stats.isSymbolicLink()) return readlink(path, { encoding: 'buffer' });
  return NO_DATA;
}

/**
 * Packs a directory as an initramfs: directories, files, symbolic links, hard links, device nodes,
 * FIFOs and sockets with their modes. The same content gives the same bytes: names are in byte
 * order, inode numbers count from 1, times are 0.
 *
 * Throws `ERR_SYSTEM` for what cannot be read, and `ERR_INVALID_ARGUMENT` for what the format or the
 * kernel cannot hold (more than 2047 MiB in all).
 */
export async function packInitrd(
  directory: string,
  options: PackOptions = {},
): Promise<Uint8Array> {
  const owner = options.owner ?? 'root';
  requireArgument(owner === 'root' || owner === 'keep', `owner must be root or keep, not ${owner}`);
  try {
    const found: Found[] = [];
    await walk(Buffer.from(directory), Buffer.alloc(0), found);
    return encodeCpio(await toEntries(found, owner === 'keep'));
  } catch (error) {
    throw systemError(error, `pack the initrd directory ${directory}`);
  }
}

async function toEntries(found: readonly Found[], keepOwner: boolean): Promise<CpioEntry[]> {
  const keyOf = ({ stats }: Found): string => `${stats.dev}:${stats.ino}`;
  // How many names of each file lie in the archive: links to names outside do not count.
  const links = new Map<string, number>();
  for (const each of found) links.set(keyOf(each), (links.get(keyOf(each)) ?? 0) + 1);
  const inodes = new Map<string, number>();
  const left = new Map(links);
  const entries: CpioEntry[] = [];
  let total = 0;
  for (const each of found) {
    const { stats } = each;
    const key = keyOf(each);
    if (!inodes.has(key)) inodes.set(key, inodes.size + 1);
    const remaining = left.get(key)! - 1;
    left.set(key, remaining);
    // Of several links the last carries the content, as readers of the format expect.
    requireTotal(total + (remaining === 0 ? Number(stats.size) : 0));
    const data = remaining === 0 ? await contentOf(each) : NO_DATA;
    total += data.length;
    requireTotal(total);
    entries.push({
      name: each.name,
      inode: inodes.get(key)!,
      mode: Number(stats.mode),
      uid: keepOwner ? Number(stats.uid) : 0,
      gid: keepOwner ? Number(stats.gid) : 0,
      links: links.get(key)!,
      deviceMajor: major(stats.rdev),
      deviceMinor: minor(stats.rdev),
      data,
    });
  }
  return entries;
}

function requireTotal(total: number): void {
  requireArgument(
    total <= MAX_INITRD,
    `the directory holds more than ${MAX_INITRD} bytes, which no initrd can; use a disk`,
  );
}
