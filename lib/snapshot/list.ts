/** What is in a store, for people: nothing here is on the way of a restore. */
import { KvmsnapError } from '../errors.js';
import { requireBlobDirectories } from './blobs.js';
import { splitLayers } from './chain.js';
import type { SnapshotConfig } from './config.js';
import { type IndexEntry, LIMITS, type Manifest } from './format.js';
import { mayBeSnapshot, readIndex, readManifest, resolve, tagOf } from './index-file.js';
import { readConfig } from './load.js';
import type { Reading } from './reading.js';

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

/** Bytes of a summary, most of them annotations. */
const MOST_KEPT = 64 * 1024;

/** A name in the index, with a summary or with what is wrong. */
export type SnapshotEntry = { digest: string; tag?: string } & (
  | { summary: SnapshotSummary }
  | { problem: KvmsnapError }
);

/** What cannot be read, or would cost more than the limits allow, is told as the entry's problem. */
export async function listSnapshots(reading: Reading): Promise<SnapshotEntry[]> {
  requireBlobDirectories(reading.store);
  const found: SnapshotEntry[] = [];
  for (const entry of (await readIndex(reading)).manifests.filter(mayBeSnapshot)) {
    const listed = await summaryOf(reading, entry);
    if (listed) found.push(listed);
    await reading.breathe();
  }
  return found;
}

/** Nothing for an entry of another tool. */
async function summaryOf(reading: Reading, entry: IndexEntry): Promise<SnapshotEntry | undefined> {
  const { digest, size } = entry;
  const tag = tagOf(entry);
  const name = { digest, ...(tag === undefined ? {} : { tag }) };
  try {
    // Names of one snapshot agree in its size, or are read for themselves.
    const kept = Math.min(size, MOST_KEPT);
    const summary = await reading.once('summary', `${digest} ${size}`, kept, async () =>
      summarise(reading, await readManifest(reading, { digest, size })),
    );
    return { ...name, summary };
  } catch (problem) {
    if (!(problem instanceof KvmsnapError) || problem.code === 'ERR_ABORTED') throw problem;
    // Without a type in the index it may as well be another tool's image.
    const isForeign = entry.artifactType === undefined && problem.code === 'ERR_SNAPSHOT_FORMAT';
    return isForeign ? undefined : { ...name, problem };
  }
}

async function summarise(reading: Reading, manifest: Manifest): Promise<SnapshotSummary> {
  const { state, memory, workingSet } = splitLayers(manifest);
  const config = await readConfig(reading, manifest);
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
export async function ancestors(reading: Reading, ref: string): Promise<string[]> {
  requireBlobDirectories(reading.store);
  const line: string[] = [];
  const first = await readManifest(reading, await resolve(reading, ref));
  let config = await readConfig(reading, first);
  // Digests make a cycle infeasible; the limit is for its own sake.
  while (config.parent !== null && line.length < LIMITS.memoryLayers) {
    const digest = config.parent;
    let manifest: Manifest;
    try {
      manifest = await readManifest(reading, { digest });
    } catch (error) {
      if (error instanceof KvmsnapError && error.code === 'ERR_SNAPSHOT_MISSING') break;
      throw error;
    }
    line.push(digest);
    config = await readConfig(reading, manifest);
    await reading.breathe();
  }
  return line;
}
