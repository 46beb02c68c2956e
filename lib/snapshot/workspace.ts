/**
 * A writer's private directory inside the store, on the same file system, so that finished files
 * are moved into place by rename. Named by its owner's token; what the dead left is swept.
 */
import { lstatSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { open, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { errnoCode, formatError } from './failures.js';
import { PRIVATE_DIR } from './format.js';
import { isOwnerToken, newOwnerToken, ownerStatus } from './owner.js';

/** After so long, work of another host or PID namespace counts as left behind. Milliseconds. */
const FOREIGN_AGE_MS = 24 * 3600_000;

export const privateDirectory = (store: string): string => join(store, PRIVATE_DIR);
/** Where the workspaces of a store lie, each named by its owner's token. */
export const workspaces = (store: string): string => join(privateDirectory(store), 'tmp');

export class Workspace {
  readonly store: string;
  readonly token: string;
  readonly path: string;

  /** Throws the file system's error; callers say what they were doing. */
  constructor(store: string) {
    this.store = store;
    this.token = newOwnerToken();
    this.path = join(workspaces(store), this.token);
    ensureDirectory(privateDirectory(store));
    ensureDirectory(workspaces(store));
    mkdirSync(this.path, { mode: 0o700 });
  }

  file(name: string): string {
    return join(this.path, name);
  }

  /** Writes a new file and, when `durable`, makes its bytes survive a crash of the system. */
  async write(name: string, bytes: Uint8Array, durable: boolean): Promise<string> {
    const path = this.file(name);
    const handle = await open(path, 'wx', 0o600);
    try {
      await handle.writeFile(bytes);
      if (durable) await handle.sync();
    } finally {
      await handle.close();
    }
    return path;
  }

  async remove(): Promise<void> {
    await rm(this.path, { recursive: true, force: true });
  }
}

/** Makes names in a directory survive a crash of the system. */
export async function syncDirectory(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/**
 * Makes a directory of a store, for its owner only: guest memory lies in it. A hostile store must not
 * make us write through a symbolic link.
 */
export function ensureDirectory(path: string): void {
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (error) {
    if (errnoCode(error) !== 'EEXIST') throw error;
    requireDirectory(path);
  }
}

function requireDirectory(path: string): void {
  if (!lstatSync(path).isDirectory()) {
    throw formatError(path, 'not a directory (links are not followed)');
  }
}

/** Removes workspaces whose owners are gone. Does what it may: a read-only store is left alone. */
export function sweepWorkspaces(store: string): void {
  const root = workspaces(store);
  let names: string[];
  try {
    requireDirectory(privateDirectory(store));
    requireDirectory(root);
    names = readdirSync(root);
  } catch {
    return;
  }
  for (const name of names) {
    const path = join(root, name);
    try {
      if (isOwnerToken(name) && isAbandoned(name, path)) {
        rmSync(path, { recursive: true, force: true });
      }
    } catch (error) {
      if (!['EACCES', 'EPERM', 'EROFS', 'ENOENT'].includes(errnoCode(error) ?? '')) throw error;
    }
  }
}

function isAbandoned(token: string, path: string): boolean {
  const status = ownerStatus(token);
  if (status !== 'unknown') return status === 'dead';
  return Date.now() - lstatSync(path).mtimeMs > FOREIGN_AGE_MS;
}
