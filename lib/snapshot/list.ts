/** What is in a store, for people: nothing here is on the way of a restore. */
import { KvmsnapError } from '../errors.js';
import { requireBlobDirectories } from './blobs.js';
import { splitLayers } from './chain.js';
import type { SnapshotConfig } from './config.js';
import { LIMITS, type Manifest } from './format.js';
import { mayBeSnapshot, readIndex, readManifest, resolve, tagOf } from './index-file.js';
import { readConfig } from './load.js';

export interface SnapshotSummary {
  /** RFC 3339. */
  created: string;
  vcpus: number;
  /** Bytes of guest RAM. */
  memory: number;
  /** Bytes of all its blobs, those that it shares with ancestors included. */
  bytes: number;
  /** Bytes that it added to its parent's. */
  ownBytes: number;
  /** 1 for a full snapshot, and one more for each increment. */
  layers: number;
  /** Whether it says which pages a restore on demand should fetch first. */
  workingSet: boolean;
  parent: string | null;
  product: SnapshotConfig['product'];
  annotations: Record<string, string>;
}

/** A name in the index, with a summary or with what is wrong. */
export type SnapshotEntry = { digest: string; tag?: string } & (
  | { summary: SnapshotSummary }
  | { problem: KvmsnapError }
);

export function listSnapshots(store: string): SnapshotEntry[] {
  requireBlobDirectories(store);
  return readIndex(store)
    .manifests.filter(mayBeSnapshot)
    .flatMap((entry): SnapshotEntry[] => {
      const { digest, size } = entry;
      const tag = tagOf(entry);
      const name = { digest, ...(tag === undefined ? {} : { tag }) };
      try {
        return [{ ...name, summary: summarise(store, readManifest(store, { digest, size })) }];
      } catch (problem) {
        if (!(problem instanceof KvmsnapError)) throw problem;
        // Without a type in the index it may as well be another tool's image.
        const isForeign =
          entry.artifactType === undefined && problem.code === 'ERR_SNAPSHOT_FORMAT';
        return isForeign ? [] : [{ ...name, problem }];
      }
    });
}

function summarise(store: string, manifest: Manifest): SnapshotSummary {
  const { state, memory, workingSet } = splitLayers(manifest);
  const config = readConfig(store, manifest);
  const sizeOf = (list: { size: number }[]): number =>
    list.reduce((sum, { size }) => sum + size, 0);
  const own = memory.at(-1);
  const ownMemory = own ? sizeOf([own.index, ...own.parts]) : 0;
  return {
    created: config.created,
    vcpus: config.machine.vcpus,
    memory: sizeOf(config.machine.memory.regions),
    bytes: sizeOf([manifest.config, ...manifest.layers]),
    ownBytes: manifest.config.size + state.size + ownMemory + (workingSet?.size ?? 0),
    layers: memory.length,
    workingSet: workingSet !== undefined,
    parent: config.parent,
    product: config.product,
    annotations: config.annotations,
  };
}

/** Parents, nearest first, until one that is not in the store or has none. */
export function ancestors(store: string, ref: string): string[] {
  requireBlobDirectories(store);
  const line: string[] = [];
  let config = readConfig(store, readManifest(store, resolve(store, ref)));
  // Digests make a cycle infeasible; the limit is for its own sake.
  while (config.parent !== null && line.length < LIMITS.memoryLayers) {
    const digest = config.parent;
    let manifest: Manifest;
    try {
      manifest = readManifest(store, { digest });
    } catch (error) {
      if (error instanceof KvmsnapError && error.code === 'ERR_SNAPSHOT_MISSING') break;
      throw error;
    }
    line.push(digest);
    config = readConfig(store, manifest);
  }
  return line;
}
