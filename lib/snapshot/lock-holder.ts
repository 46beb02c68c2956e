/**
 * Whether what stands at the path of a lock is held by anybody. A store is hostile, or was copied with
 * the lock in it, so a lock is believed only as far as it can be checked:
 *
 * - It is a regular file with an owner's token, and the very file (a hard link of it) that the owner
 *   has in its workspace. Copies, links, directories and other text are not.
 * - The owner's thread lives, and its process has the file open for writing, as every holder does.
 * - Where that cannot be seen (another host, another PID namespace, a process of another user that
 *   is not the file's owner), the holder must have refreshed the file within {@link FOREIGN_AGE_MS}.
 *   The time of the last change is the file system's own: nobody can set it, and clocks of hosts do
 *   not matter.
 */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  type Stats,
  statSync,
} from 'node:fs';
import { join } from 'node:path';
import { errnoCode } from './failures.js';
import { isOwnerToken, ownerPid, ownerStatus } from './owner.js';
import { workspaces } from './workspace.js';

/** The name of the file with its token in an owner's workspace. */
export const OWNER_FILE = 'owner';
const MAX_TOKEN_BYTES = 256;
/** A lock of another host or PID namespace that was not refreshed for so long is dead. */
const FOREIGN_AGE_MS = 60_000;

export interface LockHolder {
  /** Of the owner; empty when there is none that can be read. */
  token: string;
  /** Nobody holds it: it may be removed. */
  gone: boolean;
}

/**
 * Who holds the lock at `path`; `undefined`: it is free.
 *
 * @param now Milliseconds, by the clock of the file system.
 * @param known Tokens of owners that were seen to have their files open; more are added.
 */
export function lockHolder(
  store: string,
  path: string,
  now: number,
  known: Set<string> = new Set(),
): LockHolder | undefined {
  for (;;) {
    const file = openLock(path);
    if (file === undefined) return undefined;
    if (typeof file !== 'number') return file.readable ? GARBAGE : unreadable(path, now);
    try {
      const stats = fstatSync(file);
      if (!stats.isFile() || stats.size > MAX_TOKEN_BYTES) return GARBAGE;
      const token = readText(file);
      if (!isOwnerToken(token)) return GARBAGE;
      const gone = !isHeld(store, token, stats, { now, known });
      // An owner that is done removes its lock first. So what was seen holds if the lock is still
      // there; its inode cannot have been used again while it is open here.
      if (isSameFile(path, stats)) return { token, gone };
    } finally {
      closeSync(file);
    }
  }
}

const GARBAGE: LockHolder = { token: '', gone: true };

function openLock(path: string): number | { readable: boolean } | undefined {
  try {
    // Without O_NONBLOCK a named pipe would hang the caller.
    return openSync(path, constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK);
  } catch (error) {
    const code = errnoCode(error);
    if (code === 'ENOENT') return undefined;
    // A link, a socket or a device; or a file of another user.
    if (code === 'ELOOP' || code === 'ENXIO' || code === 'ENODEV') return { readable: true };
    if (code === 'EACCES') return { readable: false };
    throw error;
  }
}

function unreadable(path: string, now: number): LockHolder | undefined {
  const stats = lstatSync(path, { throwIfNoEntry: false });
  return stats && { token: '', gone: isOld(stats, now) };
}

function readText(fd: number): string {
  const bytes = Buffer.alloc(MAX_TOKEN_BYTES);
  return bytes.toString('latin1', 0, readSync(fd, bytes, 0, bytes.length, 0));
}

function isHeld(
  store: string,
  token: string,
  stats: Stats,
  { now, known }: { now: number; known: Set<string> },
): boolean {
  const status = ownerStatus(token);
  if (status === 'dead') return false;
  if (isSameFile(join(workspaces(store), token, OWNER_FILE), stats) === false) return false;
  if (status === 'unknown') return !isOld(stats, now);
  if (known.has(token)) return true;
  const open = hasOpen(ownerPid(token), stats);
  if (open) known.add(token);
  if (open !== undefined) return open;
  // Only its owner can have made the file. On file systems that map users this says nothing.
  return usersOf(ownerPid(token)).includes(stats.uid) || !isOld(stats, now);
}

const isOld = (stats: Stats, now: number): boolean => now - stats.ctimeMs > FOREIGN_AGE_MS;

/** Whether a file stands at a path; `undefined`: it may not be looked at. */
export function isSameFile(path: string, { dev, ino }: Stats): boolean | undefined {
  try {
    const found = lstatSync(path, { throwIfNoEntry: false });
    return found !== undefined && found.dev === dev && found.ino === ino;
  } catch (error) {
    if (errnoCode(error) === 'EACCES') return undefined;
    throw error;
  }
}

/**
 * Whether a process has a file open for writing, as holders have and those who only look have not;
 * `undefined` when its descriptors may not be looked at.
 */
function hasOpen(pid: string, { dev, ino }: Stats): boolean | undefined {
  const directory = `/proc/${pid}/fd`;
  try {
    return readdirSync(directory).some((name) => {
      const path = join(directory, name);
      // One that was closed since is none.
      const stats = statSync(path, { throwIfNoEntry: false });
      if (stats?.dev !== dev || stats.ino !== ino) return false;
      // The mode of the link is that of the descriptor (proc_pid_fd(5)).
      return ((lstatSync(path, { throwIfNoEntry: false })?.mode ?? 0) & 0o200) !== 0;
    });
  } catch {
    return undefined;
  }
}

/** Real, effective, saved and file system user of a process. */
function usersOf(pid: string): number[] {
  try {
    const [, users = ''] =
      /^Uid:\s*(.*)$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1')) ?? [];
    return users.split(/\s+/).map(Number);
  } catch {
    return [];
  }
}
