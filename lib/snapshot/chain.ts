/**
 * From the layers of a manifest to one flat list of extents. A manifest names every memory layer
 * from the oldest ancestor's to its own, so a snapshot is whole by itself: no other manifest is
 * read to restore it, and it outlives its parent.
 */
import type { NativeExtent } from '../native/binding.js';
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
import type { MemoryIndex, MemoryRegion } from './memory-index.js';

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
export function checkLayer(index: MemoryIndex, layer: LayerRef, regions: MemoryRegion[]): void {
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
  /** In order of gpa, not overlapping; `file` counts `files`. What no extent names is zero. */
  extents: NativeExtent[];
  /** The parts that extents lie in. Parts that upper layers hide wholly are left out. */
  files: Descriptor[];
}

/** Pages of a layer: content, or (`file` < 0) zeros. Addresses are below 2^52: exact as numbers. */
interface Piece {
  gpa: number;
  end: number;
  file: number;
  offset: number;
}

/** Lays layers over each other, oldest first. The indices have been decoded and checked. */
export function flatten(layers: { ref: LayerRef; index: MemoryIndex }[]): FlatMemory {
  const total = layers.reduce((sum, { index: i }) => sum + i.extents.length + i.zeros.length, 0);
  if (total > LIMITS.extents) {
    throw formatError('memory', `${total} extents in all layers, more than ${LIMITS.extents}`);
  }
  const parts = layers.flatMap(({ ref }) => ref.parts);
  let firstPart = 0;
  const lists = layers.map(({ ref, index }) => {
    const pieces = piecesOf(index, firstPart);
    firstPart += ref.parts.length;
    return pieces;
  });
  return number(parts, overlayAll(lists));
}

function piecesOf(index: MemoryIndex, firstPart: number): Piece[] {
  const pieces = index.extents.map(({ gpa, length, part, offset }): Piece => {
    const start = Number(gpa);
    return { gpa: start, end: start + length, file: firstPart + part, offset };
  });
  if (index.zeros.length === 0) return pieces;
  for (const { gpa, length } of index.zeros) {
    pieces.push({ gpa: Number(gpa), end: Number(gpa) + length, file: -1, offset: 0 });
  }
  return pieces.sort((a, b) => a.gpa - b.gpa);
}

/** Overlaying is associative: pairwise, so that n pieces in m layers take n log m steps. */
function overlayAll(lists: Piece[][]): Piece[] {
  if (lists.length <= 1) return lists[0] ?? [];
  const middle = lists.length >> 1;
  return overlay(overlayAll(lists.slice(0, middle)), overlayAll(lists.slice(middle)));
}

/** `upper` wins wherever it has pieces, zeros included. Both and the result are in order of gpa. */
function overlay(lower: Piece[], upper: Piece[]): Piece[] {
  const out: Piece[] = [];
  let next = 0;
  for (const low of lower) {
    let start = low.gpa;
    for (; next < upper.length; next++) {
      const high = upper[next] as Piece;
      if (high.gpa >= low.end) break;
      if (high.gpa > start) out.push(cut(low, start, high.gpa));
      start = Math.max(start, high.end);
      // It may hide pieces that follow, too: it stays current.
      if (high.end > low.end) break;
      out.push(high);
    }
    if (start < low.end) out.push(cut(low, start, low.end));
  }
  for (; next < upper.length; next++) out.push(upper[next] as Piece);
  return out;
}

const cut = (piece: Piece, gpa: number, end: number): Piece => ({
  gpa,
  end,
  file: piece.file,
  offset: piece.offset + (gpa - piece.gpa),
});

/** Drops zeros, joins neighbours, and numbers the parts that are in use. */
function number(parts: Descriptor[], pieces: Piece[]): FlatMemory {
  const files: Descriptor[] = [];
  const numbers = new Map<number, number>();
  const extents: NativeExtent[] = [];
  let last: Piece | undefined;
  for (const piece of pieces) {
    if (piece.file < 0) continue;
    const length = piece.end - piece.gpa;
    const open = extents.at(-1);
    if (open && last && continues(last, piece)) {
      open.length += length;
    } else {
      let file = numbers.get(piece.file);
      if (file === undefined) {
        file = files.push(parts[piece.file] as Descriptor) - 1;
        numbers.set(piece.file, file);
      }
      extents.push({ file, gpa: BigInt(piece.gpa), length, offset: piece.offset });
    }
    last = piece;
  }
  return { extents, files };
}

const continues = (last: Piece, piece: Piece): boolean =>
  last.file === piece.file &&
  last.end === piece.gpa &&
  last.offset + (last.end - last.gpa) === piece.offset;
