/** One snapshot in place of a chain, or of a stretch of it. */

import type { NativeImage } from '../native/binding.js';
import { nativeBinding } from '../native/load.js';
import { type OnProgress, withProgress } from '../progress.js';
import type { LoadedSnapshot } from '../snapshot/load.js';
import type { SnapshotStore } from '../snapshot/store.js';
import { requireParent } from './save.js';
import type { Snapshot } from './snapshot.js';
import { writeMemory } from './write-memory.js';

export interface FlattenOptions {
  /** A name for the new snapshot; one that is in use moves to it. */
  tag?: string;
  /**
   * An ancestor: the new snapshot is then an increment on it, in place of all between the two. Without
   * one it is full.
   */
  parent?: Snapshot;
  /** Wait for the disk. Default: as the store was opened. */
  durable?: boolean;
  onProgress?: OnProgress;
  /** Aborts with `ERR_ABORTED`: the store is as before. */
  signal?: AbortSignal;
}

/** Writes the same instant anew. Gives the digest of the snapshot that has it. */
export async function flattenSnapshot(
  store: SnapshotStore,
  { loaded, image }: { loaded: LoadedSnapshot; image: NativeImage },
  { tag, parent, durable, onProgress, signal: given }: FlattenOptions,
): Promise<string> {
  return withProgress({ onProgress, signal: given }, async (progress) => {
    const { signal } = progress;
    const { config, state, digest, workingSet } = loaded;
    // Damage would get good checksums, and never be found again.
    await store.verify(digest, {
      digestFile: nativeBinding().digestFile,
      signal,
    });
    await using writer = await store.begin(durable === undefined ? {} : { durable });
    if (parent) await requireParent(writer, parent, config.machine);
    const { written, total } = await writeMemory(writer, {
      image,
      ...(parent ? { since: await parent.marksFor(image) } : {}),
      progress,
    });
    progress.report(total, total);
    await progress.settle();
    const committed = await writer.commit({
      ...(tag === undefined ? {} : { tag }),
      config: {
        machine: config.machine,
        host: config.host,
        requires: config.requires,
        annotations: config.annotations,
        created: new Date(config.created),
      },
      state,
      memory: written,
      ...(parent ? { parentDigest: parent.digest } : {}),
      ...(workingSet ? { workingSet } : {}),
      signal,
    });
    return committed.digest;
  });
}
