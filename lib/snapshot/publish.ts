/** The last step of a commit: blobs and index into place. */
import { lstat, rename, unlink } from 'node:fs/promises';
import { KvmsnapError } from '../errors.js';
import { blobDirectory, blobPath } from './blobs.js';
import { errnoCode, missingError } from './failures.js';
import type { Descriptor } from './format.js';
import { readIndex } from './index-file.js';
import type { StoreLimits } from './limits.js';
import { withLock } from './lock.js';
import { Reading } from './reading.js';
import { prepareIndex, withEntry } from './update.js';
import { syncDirectory, type Workspace } from './workspace.js';

/** A blob that is written whole, but not in its place. */
export interface PendingBlob {
  path: string;
  ref: Descriptor;
}

export interface Publication {
  blobs: PendingBlob[];
  /** Blobs that must be in the store already. */
  inherited: Descriptor[];
  /** What the index gets: the manifest's descriptor with its names. */
  entry: Descriptor;
  durable: boolean;
  signal?: AbortSignal;
}

/** Takes the lock and publishes. What fails before the index is replaced is undone. */
export async function publish(
  workspace: Workspace,
  limits: StoreLimits,
  publication: Publication,
): Promise<void> {
  const { signal } = publication;
  await withLock(
    workspace,
    () => publishLocked(workspace, limits, publication),
    signal ? { signal } : {},
  );
}

async function publishLocked(
  workspace: Workspace,
  limits: StoreLimits,
  { blobs, inherited, entry, durable, signal }: Publication,
): Promise<void> {
  const { store } = workspace;
  // A sweep of the store may have run since the parent was read.
  for (const ref of inherited) await requireBlob(store, ref);
  const index = await readIndex(new Reading(store, limits, { signal }));
  const replaceIndex = await prepareIndex(workspace, withEntry(index, entry), durable);
  const added: string[] = [];
  try {
    throwIfAborted(signal);
    for (const { path, ref } of blobs) {
      const target = blobPath(store, ref.digest);
      if (!(await exists(target))) added.push(target);
      // Over an equal blob, too: ours is known to be good.
      await rename(path, target);
    }
    if (durable) await syncDirectory(blobDirectory(store));
    await replaceIndex();
  } catch (cause) {
    for (const path of added) await unlink(path).catch(() => undefined);
    throw cause;
  }
  // Committed: what fails from here on must not be undone.
  if (durable) await syncDirectory(store);
}

async function requireBlob(store: string, ref: Descriptor): Promise<void> {
  if (!(await exists(blobPath(store, ref.digest), ref.size))) {
    throw missingError(`blob ${ref.digest} of the parent is no longer in the store ${store}`);
  }
}

async function exists(path: string, size?: number): Promise<boolean> {
  try {
    const stats = await lstat(path);
    return size === undefined || (stats.isFile() && stats.size === size);
  } catch (error) {
    if (errnoCode(error) === 'ENOENT') return false;
    throw error;
  }
}

export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) {
    throw new KvmsnapError('ERR_ABORTED', 'the snapshot was aborted; the store is as before', {
      cause: signal.reason,
    });
  }
}
