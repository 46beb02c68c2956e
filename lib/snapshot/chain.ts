/**
 * From the layers of a manifest to one flat list of extents. A manifest names every memory layer
 * from the oldest ancestor's to its own, so a snapshot is whole by itself: no other manifest is
 * read to restore it, and it outlives its parent.
 */
import { Extents } from './extents.js';
import { formatError } from './failures.js';
import {
  type Descriptor,
  LIMITS,
  type Manifest,
  MEDIA_TYPE_MEMORY,
  MEDIA_TYPE_MEMORY_INDEX,
  MEDIA_TYPE_STATE,
  MEDIA_TYPE_WORKING_SET,
} from './format.js';
import { defaultLimits, requireWithin, type StoreLimits } from './limits.js';
import type { DecodedIndex, MemoryRegion } from './memory-index.js';
import { finish, ROUNDS_PER_STEP, type Steps } from './steps.js';

const WHAT = 'manifest';

/** One layer as the manifest names it: an index, and the parts that it speaks of, in order. */
export interface LayerRef {
  index: Descriptor;
  parts: Descriptor[];
}

/** The layers of a manifest, by what they are. */
export interface Layers {
  state: Descriptor;
  /** Oldest first. */
  memory: LayerRef[];
  workingSet?: Descriptor;
}

/** Splits `layers`: `state (index part*)+ working-set?`. */
export function splitLayers(manifest: Manifest): Layers {
  const [state, ...rest] = manifest.layers;
  const hasWorkingSet = rest.at(-1)?.mediaType === MEDIA_TYPE_WORKING_SET;
  const workingSet = hasWorkingSet ? rest.pop() : undefined;
  if (state?.mediaType !== MEDIA_TYPE_STATE) throw formatError(WHAT, 'its first layer is no state');
  const memory: LayerRef[] = [];
  for (const descriptor of rest) {
    if (descriptor.mediaType === MEDIA_TYPE_MEMORY_INDEX) {
      memory.push({ index: descriptor, parts: [] });
    } else if (descriptor.mediaType === MEDIA_TYPE_MEMORY && memory.length > 0) {
      memory.at(-1)?.parts.push(descriptor);
    } else {
      throw formatError(
        WHAT,
        `a layer of type ${descriptor.mediaType.slice(0, 80)} is not expected`,
      );
    }
  }
  if (memory.length === 0) throw formatError(WHAT, 'it has no memory layer');
  if (memory.length > LIMITS.memoryLayers) {
    throw formatError(
      WHAT,
      `it has ${memory.length} memory layers, more than ${LIMITS.memoryLayers}`,
    );
  }
  return { state, memory, ...(workingSet ? { workingSet } : {}) };
}

/** Refuses an index that does not speak of the machine's regions or of the manifest's parts. */
export function checkLayer(index: DecodedIndex, layer: LayerRef, regions: MemoryRegion[]): void {
  const sameRegions =
    index.regions.length === regions.length &&
    index.regions.every((region, i) => {
      const other = regions[i];
      return region.slot === other?.slot && region.gpa === other.gpa && region.size === other.size;
    });
  if (!sameRegions) throw formatError('memory index', 'its regions are not those of the config');
  const sameParts =
    index.parts.length === layer.parts.length &&
    index.parts.every((part, i) => part.size === layer.parts[i]?.size);
  if (!sameParts) throw formatError('memory index', 'its parts are not those of the manifest');
}

export interface FlatMemory {
  /** Of each file: what its layer says of its bytes. */
  checksums: PartChecksums[];
  /** In order of gpa, not overlapping; `file` counts `files`. What no extent names is zero. */
  extents: Extents;
  /** The parts that extents lie in. Parts that upper layers hide wholly are left out. */
  files: Descriptor[];
}

/** Checksums of a part's chunks, of `chunkSize` bytes each. */
export interface PartChecksums {
  chunkSize: number;
  crc32c: Uint32Array;
}

interface DecodedLayer {
  ref: LayerRef;
  index: DecodedIndex;
}

/** A part of a layer, with what the layer's index says of it. */
interface PartOfLayer {
  ref: Descriptor;
  checksums: PartChecksums;
}

/** Lays layers over each other, oldest first. The indices have been decoded and checked. */
export function flatten(layers: DecodedLayer[], limits = defaultLimits()): FlatMemory {
  return finish(flattenSteps(layers, limits));
}

/** `ERR_SNAPSHOT_LIMIT`. */
export function* flattenSteps(layers: DecodedLayer[], limits: StoreLimits): Steps<FlatMemory> {
  const total = layers.reduce((sum, { index: i }) => sum + i.extents.length + i.zeros.length, 0);
  requireWithin(limits, 'extents', total, 'the snapshot has too many extents in all its layers');
  const parts = layers.flatMap(({ ref, index }) =>
    ref.parts.map((part, i): PartOfLayer => {
      const crc32c = index.parts[i]?.crc32c ?? new Uint32Array();
      return { ref: part, checksums: { chunkSize: index.chunkSize, crc32c } };
    }),
  );
  let firstPart = 0;
  const lists: Extents[] = [];
  for (const { ref, index } of layers) {
    lists.push(yield* piecesOf(index, firstPart));
    firstPart += ref.parts.length;
  }
  const memory = yield* number(parts, yield* overlayAll(lists));
  requireWithin(
    limits,
    'sharedBytes',
    yield* sharedBytes(memory),
    'the snapshot takes many bytes of memory from the same places of its parts',
  );
  return memory;
}

/** Bytes of extents beyond those that their files have. */
function* sharedBytes({ extents, files }: FlatMemory): Steps<number> {
  const used = new Float64Array(files.length);
  for (let i = 0; i < extents.length; i++) {
    if (i % ROUNDS_PER_STEP === 0) yield;
    (used[extents.file(i)] as number) += extents.size(i);
  }
  return files.reduce((sum, { size }, i) => sum + Math.max(0, (used[i] as number) - size), 0);
}

/** Content and zeros (of file -1) in one list, in order of gpa. */
function* piecesOf({ extents, zeros }: DecodedIndex, firstPart: number): Steps<Extents> {
  const pieces = new Extents(extents.length + zeros.length);
  let next = 0;
  for (let i = 0; i < extents.length; i++) {
    if (i % ROUNDS_PER_STEP === 0) yield;
    const gpa = extents.gpa(i);
    for (; next < zeros.length && zeros.gpa(next) < gpa; next++) {
      if (next % ROUNDS_PER_STEP === 0) yield;
      pieces.add(zeros.gpa(next), zeros.size(next), 0, -1);
    }
    pieces.add(gpa, extents.size(i), extents.offset(i), firstPart + extents.file(i));
  }
  for (; next < zeros.length; next++) {
    if (next % ROUNDS_PER_STEP === 0) yield;
    pieces.add(zeros.gpa(next), zeros.size(next), 0, -1);
  }
  return pieces;
}

/** Overlaying is associative: pairwise, so that n pieces in m layers take n log m steps. */
function* overlayAll(lists: Extents[]): Steps<Extents> {
  if (lists.length <= 1) return lists[0] ?? new Extents(0);
  const middle = lists.length >> 1;
  const lower = yield* overlayAll(lists.slice(0, middle));
  return yield* overlay(lower, yield* overlayAll(lists.slice(middle)));
}

/** `upper` wins wherever it has pieces, zeros included. Both and the result are in order of gpa. */
function* overlay(lower: Extents, upper: Extents): Steps<Extents> {
  // An upper piece may cut a lower one in two.
  const out = new Extents(lower.length + 2 * upper.length);
  let next = 0;
  for (let i = 0; i < lower.length; i++) {
    if (i % ROUNDS_PER_STEP === 0) yield;
    const gpa = lower.gpa(i);
    const end = lower.end(i);
    const offset = lower.offset(i);
    const file = lower.file(i);
    let start = gpa;
    for (; next < upper.length; next++) {
      if (next % ROUNDS_PER_STEP === 0) yield;
      const over = upper.gpa(next);
      if (over >= end) break;
      if (over > start) out.add(start, over - start, offset + (start - gpa), file);
      start = Math.max(start, upper.end(next));
      // It may hide pieces that follow, too: it stays current.
      if (upper.end(next) > end) break;
      out.add(over, upper.size(next), upper.offset(next), upper.file(next));
    }
    if (start < end) out.add(start, end - start, offset + (start - gpa), file);
  }
  for (; next < upper.length; next++) {
    if (next % ROUNDS_PER_STEP === 0) yield;
    out.add(upper.gpa(next), upper.size(next), upper.offset(next), upper.file(next));
  }
  return out;
}

/** Drops zeros, joins neighbours, and numbers the parts that are in use. */
function* number(parts: PartOfLayer[], pieces: Extents): Steps<FlatMemory> {
  const used: PartOfLayer[] = [];
  const numbers = new Int32Array(parts.length).fill(-1);
  const extents = new Extents(pieces.length);
  let last = -1;
  for (let i = 0; i < pieces.length; i++) {
    if (i % ROUNDS_PER_STEP === 0) yield;
    const part = pieces.file(i);
    if (part < 0) continue;
    const size = pieces.size(i);
    if (last >= 0 && continues(pieces, last, i)) {
      extents.prolong(size);
    } else {
      if (numbers[part] === -1) numbers[part] = used.push(parts[part] as PartOfLayer) - 1;
      extents.add(pieces.gpa(i), size, pieces.offset(i), numbers[part] as number);
    }
    last = i;
  }
  const files = used.map(({ ref }) => ref);
  return { extents, files, checksums: used.map(({ checksums }) => checksums) };
}

const continues = (pieces: Extents, last: number, i: number): boolean =>
  pieces.file(last) === pieces.file(i) &&
  pieces.end(last) === pieces.gpa(i) &&
  pieces.offset(last) + pieces.size(last) === pieces.offset(i);
