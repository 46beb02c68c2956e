/**
 * The lock of a store's writers, across processes and threads. Readers never take it.
 *
 * The lock is a file that holds its owner's token, made whole by link(2), which fails when the name
 * exists, of a file that the owner keeps open. `lock-holder.ts` tells a lock that is held from what the
 * dead left, and from what never was one. The races of breaking a lock that nobody holds:
 *
 * 1. Two waiters see the same dead owner T. Only one may unlink, or the second would unlink the lock
 *    that the first then took. The right to break T is a file too, `break-T-0`, made by link(2).
 * 2. Its holder dies before it unlinks: whoever finds it dead goes on to `break-T-1`, and so on. A
 *    level is only made when the owner of the one below is dead, so one living process has the right.
 * 3. A late waiter gets the right after the lock of T is gone and another lives: it looks at the lock
 *    again before it unlinks. Nobody else can remove T's lock meanwhile, and tokens are used once.
 *    What holds no token is broken under one name, and never becomes a lock that is held.
 */
import {
  closeSync,
  fstatSync,
  futimesSync,
  linkSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { KvmsnapError } from '../errors.js';
import { errnoCode } from './failures.js';
import { isSameFile, type LockHolder, lockHolder, OWNER_FILE } from './lock-holder.js';
import { ownerPid } from './owner.js';
import { privateDirectory, type Workspace } from './workspace.js';

const WAIT_LIMIT_MS = 60_000;
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
  writeFileSync(workspace.file(OWNER_FILE), workspace.token, { mode: 0o600 });
  // Open for as long as the lock is held, which shows that it is.
  const mine = openSync(workspace.file(OWNER_FILE), 'r+');
  try {
    await acquire(workspace, path, mine, options);
    const refresh = setInterval(() => touch(mine), REFRESH_MS).unref();
    try {
      return await work();
    } finally {
      clearInterval(refresh);
      // Another host that took us for dead may hold it by now.
      if (isSameFile(path, fstatSync(mine))) rmSync(path, { force: true });
    }
  } finally {
    closeSync(mine);
  }
}

async function acquire(
  workspace: Workspace,
  path: string,
  mine: number,
  options: LockOptions,
): Promise<void> {
  const { store } = workspace;
  const deadline = performance.now() + (options.waitMs ?? WAIT_LIMIT_MS);
  const known = new Set<string>();
  for (;;) {
    if (options.signal?.aborted) {
      throw new KvmsnapError('ERR_ABORTED', 'aborted while waiting for the lock of the store');
    }
    // Fresh times for the age check: link(2) does not set them everywhere.
    const now = touch(mine);
    if (linkIfFree(workspace.file(OWNER_FILE), path)) return;
    const holder = lockHolder(store, path, now, known);
    if (holder?.gone && breakLock(workspace, path, holder.token, now)) continue;
    if (performance.now() > deadline) throw waitedTooLong(path, holder);
    await sleep(1 + Math.random() * 9);
  }
}

function breakLock(workspace: Workspace, path: string, dead: string, now: number): boolean {
  const { store } = workspace;
  const right = (level: number): string =>
    join(privateDirectory(store), `break-${dead || 'garbage'}-${level}`);
  for (let level = 0; ; level++) {
    if (linkIfFree(workspace.file(OWNER_FILE), right(level))) {
      const holder = lockHolder(store, path, now);
      if (holder?.gone && holder.token === dead) remove(workspace, path);
      for (let used = 0; used <= level; used++) remove(workspace, right(used));
      return true;
    }
    const breaker = lockHolder(store, right(level), now);
    // Not there: the breaker is done.
    if (breaker === undefined) return true;
    if (!breaker.gone) return false;
  }
}

/** Removes rights to break that their dead owners left. */
export function sweepLock(store: string): void {
  const directory = privateDirectory(store);
  try {
    for (const name of readdirSync(directory)) {
      const path = join(directory, name);
      const dead = /^break-(.*)-\d+$/.exec(name)?.[1];
      if (dead === undefined) continue;
      if (lockHolder(store, lockPath(store), Date.now())?.token === dead) continue;
      if (lockHolder(store, path, Date.now())?.gone) rmSync(path, { force: true });
    }
  } catch {
    // Sweeping is a courtesy: a store that may not be written can still be read.
  }
}

/** Removes whatever stands at a path, a directory with all that is in it too, in one step. */
function remove(workspace: Workspace, path: string): void {
  const trash = workspace.file(`removed-${Math.random().toString(16).slice(2)}`);
  try {
    renameSync(path, trash);
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return;
    throw error;
  }
  rmSync(trash, { recursive: true, force: true });
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

/** Refreshes the times of an owner's file, and gives the clock of the file system, in milliseconds. */
function touch(file: number): number {
  try {
    const now = new Date();
    futimesSync(file, now, now);
  } catch {
    // The age only matters to other hosts.
  }
  return fstatSync(file).ctimeMs;
}

function waitedTooLong(path: string, holder: LockHolder | undefined): KvmsnapError {
  const who = holder?.token ? `process ${ownerPid(holder.token)}` : 'another writer';
  return new KvmsnapError(
    'ERR_STORE',
    `the store is locked by ${who} for too long. Wait for it, or, if no such process is ` +
      `there on any host that uses the store, remove ${path}.`,
  );
}
