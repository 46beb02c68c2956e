/**
 * What one call may cost. Sizes of single files have limits of their own (format.ts); these bound a whole
 * call, so that a small store cannot name the same bytes again and again.
 */

import { totalmem } from 'node:os';
import { constrainedMemory } from 'node:process';
import { KvmsnapError, requireArgument } from '../errors.js';
import { MiB } from '../units.js';

export interface StoreLimits {
  /**
   * Bytes of manifests, configs, states, memory indices, working sets and `index.json` that one call reads.
   * A blob that is named many times is read once. Default 512 MiB: the list of some 10 000 snapshots.
   */
  readBytes: number;
  /**
   * Bytes of all memory indices of one snapshot, each as often as it is named. Default 128 MiB: as many
   * extents as there may be. While a snapshot is opened it takes some five times as much memory.
   */
  indexBytes: number;
  /**
   * Extents and zero records of one snapshot in all its layers. Default 4 194 304: one for each MiB of the
   * largest part there may be, four times.
   */
  extents: number;
  /**
   * Bytes of guest memory that are taken from places of memory parts that others are taken from, too. A
   * restore may copy them, each as often as it is named. Default 256 MiB; kvmsnap itself writes none.
   */
  sharedBytes: number;
  /**
   * Bytes of guest RAM of a machine that is made from a snapshot. KVM keeps records of all of it, some
   * 1/500, used or not. Default: four times the memory of this host, or of its control group.
   */
  memoryBytes: number;
  /**
   * vCPUs of a machine that is made from a snapshot: each is a thread, and memory in the kernel. Default,
   * and most: what KVM says that it can (KVM_CAP_MAX_VCPUS).
   */
  vcpus: number;
}

/** Guests do not use all of their RAM at once, and share what they have in common. */
const MEMORY_FACTOR = 4;

export function defaultLimits(): StoreLimits {
  // 0 or a huge number: not constrained.
  const constrained = constrainedMemory() || Number.POSITIVE_INFINITY;
  return {
    readBytes: MiB(512),
    indexBytes: MiB(128),
    extents: 4_194_304,
    sharedBytes: MiB(256),
    memoryBytes: MEMORY_FACTOR * Math.min(totalmem(), constrained),
    vcpus: Number.POSITIVE_INFINITY,
  };
}

/** The defaults with what was asked for. `ERR_INVALID_ARGUMENT` names what is no limit. */
export function limitsOf(
  asked: Partial<StoreLimits> = {},
  base: StoreLimits = defaultLimits(),
): StoreLimits {
  requireArgument(
    typeof asked === 'object' && asked !== null,
    `limits must be an object of ${Object.keys(base).join(', ')}`,
  );
  const limits = { ...base };
  for (const [name, value] of Object.entries(asked)) {
    requireArgument(
      Object.hasOwn(base, name),
      `limits.${name} is no limit: there are ${Object.keys(base).join(', ')}`,
    );
    if (value === undefined) continue;
    requireArgument(
      typeof value === 'number' && value >= 0,
      `limits.${name} must be a number from 0, or Infinity`,
    );
    limits[name as keyof StoreLimits] = value;
  }
  return limits;
}

/** `ERR_SNAPSHOT_LIMIT` when `found` is more than allowed; `what` is a whole clause about it. */
export function requireWithin(
  limits: StoreLimits,
  name: keyof StoreLimits,
  found: number,
  what: string,
): void {
  if (found > limits[name]) throw limitError(name, found, limits[name], what);
}

function limitError(
  limit: keyof StoreLimits,
  found: number,
  allowed: number,
  what: string,
): KvmsnapError {
  return new KvmsnapError(
    'ERR_SNAPSHOT_LIMIT',
    `${what}: ${found}, where limits.${limit} allows ${allowed}. If you trust the store, raise it: ` +
      `SnapshotStore.open(path, { limits: { ${limit}: ${found} } }), or --limit ${limit}=${found}.`,
    { details: { limit, found, allowed } },
  );
}
