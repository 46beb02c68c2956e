/** Giving a snapshot a working set: the same blobs under a manifest of their own. */
import type { PageRun } from '../native/binding.js';
import { requireBlobDirectories, sha256 } from './blobs.js';
import { splitLayers } from './chain.js';
import { memoryRegions } from './config.js';
import { storeError } from './failures.js';
import {
  ANNOTATION_CREATED,
  ARTIFACT_TYPE,
  MEDIA_TYPE_OCI_MANIFEST,
  MEDIA_TYPE_WORKING_SET,
} from './format.js';
import { readManifest } from './index-file.js';
import { readConfig } from './load.js';
import { encodeManifest } from './manifest.js';
import { type PendingBlob, publish } from './publish.js';
import type { Reading } from './reading.js';
import { taggedAs } from './update.js';
import { encodeWorkingSet } from './working-set.js';
import { Workspace } from './workspace.js';

export interface AttachInput {
  /** Of the manifest. */
  digest: string;
  runs: readonly PageRun[];
  tag?: string;
  durable: boolean;
}

/** Gives the digest of the new manifest. `ERR_INVALID_ARGUMENT`, `ERR_STORE`, and what reading throws. */
export async function attachWorkingSet(
  reading: Reading,
  { digest, runs, tag, durable }: AttachInput,
): Promise<string> {
  const { store, signal } = reading;
  let workspace: Workspace | undefined;
  try {
    requireBlobDirectories(store);
    const old = await readManifest(reading, { digest });
    const { state, memory } = splitLayers(old);
    const kept = [state, ...memory.flatMap(({ index, parts }) => [index, ...parts])];
    const config = await readConfig(reading, old);
    const bytes = encodeWorkingSet(runs, memoryRegions(config.machine));
    const mine = new Workspace(store);
    workspace = mine;
    const write = async (mediaType: string, blob: Uint8Array): Promise<PendingBlob> => {
      const ref = { mediaType, digest: sha256(blob), size: blob.length };
      return { path: await mine.write(ref.digest.replace(':', '-'), blob, durable), ref };
    };
    const workingSet = await write(MEDIA_TYPE_WORKING_SET, bytes);
    const manifest = await write(
      MEDIA_TYPE_OCI_MANIFEST,
      encodeManifest({ ...old, layers: [...kept, workingSet.ref] }),
    );
    const entry = {
      ...manifest.ref,
      artifactType: ARTIFACT_TYPE,
      annotations: { [ANNOTATION_CREATED]: config.created },
    };
    await publish(mine, reading.limits, {
      blobs: [workingSet, manifest],
      inherited: [old.config, ...kept],
      entry: tag === undefined ? entry : taggedAs(entry, tag),
      durable,
      ...(signal ? { signal } : {}),
    });
    return manifest.ref.digest;
  } catch (cause) {
    throw storeError('adding a working set', cause);
  } finally {
    await workspace?.remove().catch(() => undefined);
  }
}
