/** Writing guest memory into a store: all of an image, or what it has changed. */
import { availableParallelism } from 'node:os';
import type { NativeImage, NativeImageWritten, NativeMark } from '../native/binding.js';
import type { Progress } from '../progress.js';
import type { SnapshotWriter } from '../snapshot/commit.js';
import { storeError } from '../snapshot/failures.js';
import { MiB } from '../units.js';
import { cancellable } from './abort.js';

export interface MemoryToWrite {
  image: NativeImage;
  /** Only what differs from these is written: see {@link NativeImage.changedSince}. */
  since?: NativeMark[];
  progress: Progress;
}

/** A processor hashes two parts at a time: no larger than this, and at least two for each. */
const LARGEST_PART = MiB(256);
const SMALLEST_PART = MiB(8);

/**
 * Fills the writer's parts. `ERR_STORE`, `ERR_ABORTED`, `ERR_SNAPSHOT_CORRUPT`; with `since` also
 * `ERR_INVALID_ARGUMENT`, when the image is not of that descent.
 */
export async function writeMemory(
  writer: SnapshotWriter,
  { image, since, progress }: MemoryToWrite,
): Promise<{ written: NativeImageWritten; total: number }> {
  const { signal } = progress;
  const chosen =
    since === undefined ? image.share() : await cancellable(signal, image.changedSince(since));
  try {
    const total = await cancellable(signal, chosen.measure());
    const partSize = partSizeFor(total);
    const fds = writer.openParts(chosen.partCount(partSize));
    const written = await cancellable(
      signal,
      chosen.write(partSize, {
        fds,
        durable: writer.durable,
        progress: (done) => progress.report(done, total),
      }),
    );
    return { written, total };
  } catch (cause) {
    throw storeError(`writing memory to ${writer.store}`, cause);
  } finally {
    chosen.close();
  }
}

function partSizeFor(bytes: number): number {
  const share = Math.ceil(bytes / (2 * availableParallelism()));
  return Math.min(LARGEST_PART, Math.max(SMALLEST_PART, share));
}
