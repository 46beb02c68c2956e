/** Removing blobs that no snapshot, nor anything else that the index names, needs any more. */
import { lstatSync } from 'node:fs';
import { readdir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { blobDirectory, readBlobByDigest, requireBlobDirectories, sha256 } from './blobs.js';
import { storeError } from './failures.js';
import { isDigest, LIMITS } from './format.js';
import { readIndex } from './index-file.js';
import { parseJson } from './json.js';
import { withLock } from './lock.js';
import { Workspace } from './workspace.js';

/** Other tools write blobs before they name them in the index. */
const DEFAULT_GRACE_MS = 3600_000;

export interface GcOptions {
  /** Blobs younger than this are kept. Milliseconds, one hour by default. */
  graceMs?: number;
}

export interface GcResult {
  blobs: number;
  bytes: number;
}

/**
 * Marks from the index and removes the rest, under the lock. A manifest that cannot be read stops it
 * before anything is removed, since what it needs is not known.
 */
export async function collectGarbage(store: string, options: GcOptions = {}): Promise<GcResult> {
  let workspace: Workspace | undefined;
  try {
    requireBlobDirectories(store);
    workspace = new Workspace(store);
    return await withLock(workspace, () => sweep(store, options.graceMs ?? DEFAULT_GRACE_MS));
  } catch (cause) {
    throw storeError(`collecting garbage in ${store}`, cause);
  } finally {
    await workspace?.remove().catch(() => undefined);
  }
}

async function sweep(store: string, graceMs: number): Promise<GcResult> {
  const marked = mark(store);
  const youngest = Date.now() - graceMs;
  const result = { blobs: 0, bytes: 0 };
  for (const name of await readdir(blobDirectory(store))) {
    const digest = `sha256:${name}`;
    if (!isDigest(digest) || marked.has(digest)) continue;
    const path = join(blobDirectory(store), name);
    const stats = lstatSync(path);
    if (!stats.isFile() || stats.mtimeMs > youngest) continue;
    await unlink(path);
    result.blobs += 1;
    result.bytes += stats.size;
  }
  return result;
}

/** Everything reachable, whoever made it: any `digest` in an index or manifest is kept. */
function mark(store: string): Set<string> {
  const marked = new Set<string>();
  const pending: Reference[] = references(readIndex(store));
  for (let next = pending.pop(); next; next = pending.pop()) {
    if (marked.has(next.digest)) continue;
    marked.add(next.digest);
    if (!next.isManifest) continue;
    const bytes = readBlobByDigest(store, next.digest, LIMITS.manifest, 'manifest');
    pending.push(...references(parseJson(bytes, `manifest ${sha256(bytes)}`)));
  }
  return marked;
}

interface Reference {
  digest: string;
  isManifest: boolean;
}

function references(value: unknown, found: Reference[] = []): Reference[] {
  if (typeof value !== 'object' || value === null) return found;
  const { digest, mediaType } = value as { digest?: unknown; mediaType?: unknown };
  if (typeof digest === 'string' && isDigest(digest)) {
    // OCI's and Docker's types of manifests, indices and manifest lists.
    const isManifest =
      typeof mediaType === 'string' && /(manifest|index)\.[^/]*json$/.test(mediaType);
    found.push({ digest, isManifest });
  }
  for (const inner of Object.values(value)) references(inner, found);
  return found;
}
