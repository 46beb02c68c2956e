/** Removing blobs that no snapshot, nor anything else that the index names, needs any more. */
import { lstatSync } from 'node:fs';
import { opendir, unlink } from 'node:fs/promises';
import { join } from 'node:path';
import { blobDirectory, readBlobByDigest, requireBlobDirectories } from './blobs.js';
import { storeError } from './failures.js';
import { isDigest, LIMITS } from './format.js';
import { readIndex } from './index-file.js';
import { jsonSteps } from './json.js';
import { withLock } from './lock.js';
import type { Reading } from './reading.js';
import type { Steps } from './steps.js';
import { Workspace } from './workspace.js';

/** Other tools write blobs before they name them in the index. */
const DEFAULT_GRACE_MS = 3600_000;

export interface GcOptions {
  /** `ERR_ABORTED`, after some were removed or before. */
  signal?: AbortSignal;
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
export async function collectGarbage(reading: Reading, options: GcOptions = {}): Promise<GcResult> {
  const { store, signal } = reading;
  let workspace: Workspace | undefined;
  try {
    requireBlobDirectories(store);
    workspace = new Workspace(store);
    return await withLock(
      workspace,
      () => sweep(reading, options.graceMs ?? DEFAULT_GRACE_MS),
      signal ? { signal } : {},
    );
  } catch (cause) {
    throw storeError(`collecting garbage in ${store}`, cause);
  } finally {
    await workspace?.remove().catch(() => undefined);
  }
}

async function sweep(reading: Reading, graceMs: number): Promise<GcResult> {
  const { store } = reading;
  const marked = await mark(reading);
  const youngest = Date.now() - graceMs;
  const result = { blobs: 0, bytes: 0 };
  // A store may have more files than memory has room for their names.
  for await (const { name } of await opendir(blobDirectory(store))) {
    await reading.breathe();
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
async function mark(reading: Reading): Promise<Set<string>> {
  const marked = new Set<string>();
  const pending: Reference[] = await reading.run(references(await readIndex(reading)));
  for (let next = pending.pop(); next; next = pending.pop()) {
    if (marked.has(next.digest)) continue;
    marked.add(next.digest);
    if (!next.isManifest) continue;
    const bytes = await readBlobByDigest(reading, next.digest, LIMITS.manifest, 'manifest');
    const manifest = await reading.run(jsonSteps(bytes, `manifest ${next.digest}`));
    for (const reference of await reading.run(references(manifest))) pending.push(reference);
  }
  return marked;
}

interface Reference {
  digest: string;
  isManifest: boolean;
}

function* references(value: unknown, found: Reference[] = []): Steps<Reference[]> {
  if (typeof value !== 'object' || value === null) return found;
  yield;
  const { digest, mediaType } = value as { digest?: unknown; mediaType?: unknown };
  if (typeof digest === 'string' && isDigest(digest)) {
    // OCI's and Docker's types of manifests, indices and manifest lists.
    const isManifest =
      typeof mediaType === 'string' && /(manifest|index)\.[^/]*json$/.test(mediaType);
    found.push({ digest, isManifest });
  }
  for (const inner of Object.values(value)) yield* references(inner, found);
  return found;
}
