/**
 * The lock of a store's writers, across processes and threads. Readers never take it.
 *
 * The lock is a file that holds its owner's token, made whole by link(2), which fails when the name
 * exists. An owner that died is found by its token. The races of breaking its lock:
 *
 * 1. Two waiters see the same dead owner T. Only one may unlink, or the second would unlink the lock
 *    that the first then took. The right to break T is a file too, `break-T-0`, made by link(2).
 * 2. Its holder dies before it unlinks: whoever finds it dead goes on to `break-T-1`, and so on. A
 *    level is only made when the owner of the one below is dead, so one living process has the right.
 * 3. A late waiter gets the right after the lock of T is gone and another lives: it reads the lock
 *    again before it unlinks. Nobody else can remove T's lock meanwhile, and tokens are used once.
 */
import { linkSync, readdirSync, statSync, unlinkSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { KvmsnapError } from '../errors.js';
import { readSmallFile } from './blobs.js';
import { errnoCode } from './failures.js';
import { isOwnerToken, ownerPid, ownerStatus } from './owner.js';
import { privateDirectory, type Workspace } from './workspace.js';

const OWNER_FILE = 'owner';
const MAX_TOKEN_BYTES = 256;
const WAIT_LIMIT_MS = 60_000;
/** A lock of another host or PID namespace that was not refreshed for so long is dead. */
const FOREIGN_AGE_MS = 60_000;
const REFRESH_MS = 10_000;

export interface LockOptions {
  /** Milliseconds to wait for another writer. */
  waitMs?: number;
  signal?: AbortSignal;
}

const lockPath = (store: string): string => join(privateDirectory(store), 'lock');

/** Runs `work` while no other writer changes the store. `ERR_STORE` when waiting takes too long. */
export async function withLock<T>(
  workspace: Workspace,
  work: () => Promise<T>,
  options: LockOptions = {},
): Promise<T> {
  const path = lockPath(workspace.store);
  await acquire(workspace, path, options);
  const refresh = setInterval(() => touch(path), REFRESH_MS).unref();
  try {
    return await work();
  } finally {
    clearInterval(refresh);
    // Another host that took us for dead may hold it by now.
    if (readToken(path) === workspace.token) unlinkIfThere(path);
  }
}

async function acquire(workspace: Workspace, path: string, options: LockOptions): Promise<void> {
  const mine = workspace.file(OWNER_FILE);
  writeFileSync(mine, workspace.token, { mode: 0o600 });
  const deadline = performance.now() + (options.waitMs ?? WAIT_LIMIT_MS);
  for (;;) {
    if (options.signal?.aborted) {
      throw new KvmsnapError('ERR_ABORTED', 'aborted while waiting for the lock of the store');
    }
    // Fresh times for the age check: link(2) keeps those of the inode.
    touch(mine);
    if (linkIfFree(mine, path)) return;
    const holder = readToken(path);
    if (holder !== undefined && isGone(holder, path)) {
      if (breakLock(workspace, path, holder)) continue;
    }
    if (performance.now() > deadline) throw waitedTooLong(path, holder);
    await sleep(1 + Math.random() * 9);
  }
}

function breakLock(workspace: Workspace, path: string, dead: string): boolean {
  const right = (level: number): string =>
    join(privateDirectory(workspace.store), `break-${dead || 'empty'}-${level}`);
  for (let level = 0; ; level++) {
    if (linkIfFree(workspace.file(OWNER_FILE), right(level))) {
      if (readToken(path) === dead) unlinkIfThere(path);
      for (let used = 0; used <= level; used++) unlinkIfThere(right(used));
      return true;
    }
    const breaker = readToken(right(level));
    // Gone: the breaker is done.
    if (breaker === undefined) return true;
    if (!isGone(breaker, right(level))) return false;
  }
}

/** Removes rights to break that their dead owners left. */
export function sweepLock(store: string): void {
  const directory = privateDirectory(store);
  try {
    for (const name of readdirSync(directory)) {
      const path = join(directory, name);
      const dead = /^break-(.*)-\d+$/.exec(name)?.[1];
      if (dead === undefined || readToken(lockPath(store)) === dead) continue;
      const breaker = readToken(path);
      if (breaker !== undefined && isGone(breaker, path)) unlinkIfThere(path);
    }
  } catch {
    // Sweeping is a courtesy: a store that may not be written can still be read.
  }
}

function isGone(token: string, path: string): boolean {
  const status = ownerStatus(token);
  if (status !== 'unknown') return status === 'dead';
  try {
    return Date.now() - statSync(path).mtimeMs > FOREIGN_AGE_MS;
  } catch {
    return false;
  }
}

/** The token in a file; `undefined` when there is no file, empty when it holds something else. */
function readToken(path: string): string | undefined {
  try {
    const text = readSmallFile(path, MAX_TOKEN_BYTES, 'lock').toString('latin1');
    return isOwnerToken(text) ? text : '';
  } catch (error) {
    if (errnoCode(error) === 'ERR_SNAPSHOT_MISSING') return undefined;
    throw error;
  }
}

function linkIfFree(from: string, to: string): boolean {
  try {
    linkSync(from, to);
    return true;
  } catch (error) {
    if (errnoCode(error) === 'EEXIST') return false;
    throw error;
  }
}

function unlinkIfThere(path: string): void {
  try {
    unlinkSync(path);
  } catch (error) {
    if (errnoCode(error) !== 'ENOENT') throw error;
  }
}

function touch(path: string): void {
  try {
    const now = new Date();
    utimesSync(path, now, now);
  } catch {
    // The age only matters to other hosts, and a missing file is found by whoever needs it.
  }
}

function waitedTooLong(path: string, holder: string | undefined): KvmsnapError {
  const who = holder ? `process ${ownerPid(holder)}` : 'another writer';
  return new KvmsnapError(
    'ERR_STORE',
    `the store is locked by ${who} for too long. Wait for it, or, if no such process is ` +
      `there on any host that uses the store, remove ${path}.`,
  );
}
