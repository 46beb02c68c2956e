/**
 * The memory index: which pages one layer adds to guest memory, and where they lie in its parts.
 * docs/format.md, "Memory index".
 */
import { requireArgument } from '../errors.js';
import { PAGE_SIZE } from '../units.js';
import { type CborMap, type CborValue, cborSteps, encodeCbor, isMap } from './cbor.js';
import { Extents } from './extents.js';
import { formatError, versionError } from './failures.js';
import { LAYOUT_VERSION, LIMITS } from './format.js';
import { finish, ROUNDS_PER_STEP, type Steps } from './steps.js';

const FORMAT = 'kvmsnap.memory.index';
const WHAT = 'memory index';
/** u64 gpa, u64 length, u64 offset, u32 part, u32 zero; little-endian. */
const EXTENT_BYTES = 32;
/** u64 gpa, u64 length. */
const ZERO_BYTES = 16;
const PAGE = BigInt(PAGE_SIZE);

export interface MemoryRegion {
  slot: number;
  gpa: bigint;
  /** Bytes. */
  size: number;
}

/** `length` bytes at `gpa` lie at `offset` of part number `part` of the same layer. */
export interface MemoryExtent {
  gpa: bigint;
  length: number;
  part: number;
  offset: number;
}

/** Pages that this layer makes zero, whatever lower layers have there. */
export interface ZeroExtent {
  gpa: bigint;
  length: number;
}

export interface MemoryPart {
  /** Bytes. */
  size: number;
  /** CRC-32C of each `chunkSize` bytes in turn; the last chunk may be short. */
  crc32c: Uint32Array;
}

export interface MemoryIndex {
  /** In order of gpa, not overlapping. */
  regions: MemoryRegion[];
  /** Bytes; a power of two, at least a page. */
  chunkSize: number;
  parts: MemoryPart[];
  /** In order of gpa; together with `zeros` not overlapping. */
  extents: MemoryExtent[];
  zeros: ZeroExtent[];
}

/** The same as it was read. */
export interface DecodedIndex extends Omit<MemoryIndex, 'extents' | 'zeros'> {
  /** `file` is the part. */
  extents: Extents;
  /** Of no file (-1). */
  zeros: Extents;
}

const byGpa = (a: { gpa: bigint }, b: { gpa: bigint }): number =>
  a.gpa < b.gpa ? -1 : a.gpa > b.gpa ? 1 : 0;

/** Index to bytes. `ERR_INVALID_ARGUMENT` when it breaks a rule of the format. */
export function encodeMemoryIndex(index: MemoryIndex): Uint8Array {
  const bytes = encodeCbor({
    format: FORMAT,
    version: LAYOUT_VERSION,
    regions: [...index.regions]
      .sort(byGpa)
      .map(({ slot, gpa, size }) => ({ slot, gpa, size: BigInt(size) })),
    chunkSize: index.chunkSize,
    parts: index.parts.map(({ size, crc32c }) => ({
      size: BigInt(size),
      crc32c: packWords(crc32c),
    })),
    extents: packExtents([...index.extents].sort(byGpa)),
    zeros: packZeros([...index.zeros].sort(byGpa)),
  });
  requireArgument(
    bytes.length <= LIMITS.memoryIndex,
    `the memory index has ${bytes.length} bytes, more than ${LIMITS.memoryIndex}: ` +
      'take a full snapshot instead of an incremental one',
  );
  // What we could not read back must not become a snapshot.
  try {
    decodeMemoryIndex(bytes);
  } catch (cause) {
    requireArgument(false, `memory cannot be saved: ${(cause as Error).message}`);
  }
  return bytes;
}

/** Bytes to index; `ERR_SNAPSHOT_FORMAT` for anything that breaks a rule of the format. */
export function decodeMemoryIndex(bytes: Uint8Array): DecodedIndex {
  return finish(memoryIndexSteps(bytes));
}

export function* memoryIndexSteps(bytes: Uint8Array): Steps<DecodedIndex> {
  const root = yield* cborSteps(bytes, WHAT);
  if (!isMap(root) || root.format !== FORMAT) throw formatError(WHAT, `format is not ${FORMAT}`);
  const version = small(root.version, 'version', 1, 0xffffffff);
  if (version > LAYOUT_VERSION) throw versionError(WHAT, version, LAYOUT_VERSION);
  requireKeys(root, ['format', 'version', 'regions', 'chunkSize', 'parts', 'extents', 'zeros']);
  const regions = decodeRegions(root.regions);
  const chunkSize = small(root.chunkSize, 'chunkSize', PAGE_SIZE, 2 ** 30);
  if ((chunkSize & (chunkSize - 1)) !== 0) throw bad('chunkSize is not a power of two');
  const parts = yield* decodeParts(root.parts, chunkSize);
  const extents = yield* unpackExtents(root.extents);
  const zeros = yield* unpackZeros(root.zeros);
  yield* checkPlaces(regions, extents, 'extent');
  yield* checkPlaces(regions, zeros, 'zero extent');
  yield* checkApart(extents, zeros);
  yield* checkParts(parts, extents);
  return { regions, chunkSize, parts, extents, zeros };
}

function decodeRegions(value: CborValue | undefined): MemoryRegion[] {
  const list = maps(value, 'regions', LIMITS.regions);
  if (list.length === 0) throw bad('no regions');
  const slots = new Set<number>();
  let end = 0n;
  return list.map((map) => {
    requireKeys(map, ['slot', 'gpa', 'size']);
    const slot = small(map.slot, 'slot', 0, 32_767);
    if (slots.has(slot)) throw bad(`slot ${slot} twice`);
    slots.add(slot);
    const { gpa, size } = map;
    if (typeof gpa !== 'bigint' || typeof size !== 'bigint') throw bad('a region is not 64-bit');
    checkPages(gpa, size, 'region');
    if (gpa < end) throw bad('regions overlap or are not in order');
    end = gpa + size;
    return { slot, gpa, size: Number(size) };
  });
}

function* decodeParts(value: CborValue | undefined, chunkSize: number): Steps<MemoryPart[]> {
  const parts: MemoryPart[] = [];
  for (const map of maps(value, 'parts', LIMITS.memoryParts)) {
    if (parts.length % 64 === 63) yield;
    requireKeys(map, ['size', 'crc32c']);
    const { size, crc32c } = map;
    if (typeof size !== 'bigint' || size <= 0n || size > BigInt(LIMITS.memoryPart)) {
      throw bad('a part has a bad size');
    }
    const chunks = Math.ceil(Number(size) / chunkSize);
    if (!(crc32c instanceof Uint8Array) || crc32c.length !== 4 * chunks) {
      throw bad('a part does not have one CRC-32C for each chunk');
    }
    parts.push({ size: Number(size), crc32c: unpackWords(crc32c) });
  }
  return parts;
}

/** Order, and each inside one region. Both lists are sorted: one walk. */
function* checkPlaces(regions: MemoryRegion[], list: Extents, what: string): Steps<void> {
  const places = regions.map(({ gpa, size }) => ({ gpa: Number(gpa), end: Number(gpa) + size }));
  let at = 0;
  let before = 0;
  for (let i = 0; i < list.length; i++) {
    if (i % ROUNDS_PER_STEP === 0) yield;
    const gpa = list.gpa(i);
    const end = list.end(i);
    if (end === gpa) throw bad(`${what}: not of whole pages`);
    if (end > LIMITS.guestAddress) throw bad(`${what}: beyond 52 bits`);
    if (gpa < before) throw bad(`${what}s overlap or are not in order`);
    before = end;
    let region = places[at];
    while (region && gpa >= region.end) region = places[++at];
    if (!region || gpa < region.gpa || end > region.end) {
      throw bad(`${what} at 0x${gpa.toString(16)} is not inside a region`);
    }
  }
}

function* checkApart(extents: Extents, zeros: Extents): Steps<void> {
  let at = 0;
  for (let i = 0; i < zeros.length; i++) {
    if (i % ROUNDS_PER_STEP === 0) yield;
    for (; at < extents.length && extents.end(at) <= zeros.gpa(i); at++) {
      if (at % ROUNDS_PER_STEP === 0) yield;
    }
    if (at < extents.length && extents.gpa(at) < zeros.end(i)) {
      throw bad('an extent and a zero extent overlap');
    }
  }
}

function* checkParts(parts: MemoryPart[], extents: Extents): Steps<void> {
  for (let i = 0; i < extents.length; i++) {
    if (i % ROUNDS_PER_STEP === 0) yield;
    const size = parts[extents.file(i)]?.size;
    if (size === undefined) {
      throw bad(`an extent names part ${extents.file(i)} of ${parts.length}`);
    }
    if (extents.offset(i) > size || extents.size(i) > size - extents.offset(i)) {
      throw bad('an extent is not inside its part');
    }
  }
}

function checkPages(gpa: bigint, length: bigint, what: string): void {
  if (gpa % PAGE !== 0n || length % PAGE !== 0n || length === 0n) {
    throw bad(`${what}: not of whole pages`);
  }
  if (gpa + length > BigInt(LIMITS.guestAddress)) throw bad(`${what}: beyond 52 bits`);
}

function packExtents(extents: MemoryExtent[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(extents.length * EXTENT_BYTES));
  extents.forEach(({ gpa, length, part, offset }, i) => {
    const at = i * EXTENT_BYTES;
    view.setBigUint64(at, gpa, true);
    view.setBigUint64(at + 8, BigInt(length), true);
    view.setBigUint64(at + 16, BigInt(offset), true);
    view.setUint32(at + 24, part, true);
  });
  return new Uint8Array(view.buffer);
}

function* unpackExtents(value: CborValue | undefined): Steps<Extents> {
  const view = records(value, 'extents', EXTENT_BYTES);
  const extents = new Extents(view.byteLength / EXTENT_BYTES);
  for (let at = 0; at < view.byteLength; at += EXTENT_BYTES) {
    if (at % (ROUNDS_PER_STEP * EXTENT_BYTES) === 0) yield;
    if (view.getUint32(at + 28, true) !== 0) throw bad('an extent has a reserved field set');
    const part = view.getUint32(at + 24, true);
    extents.add(pages(view, at), pages(view, at + 8), pages(view, at + 16), part);
  }
  return extents;
}

function packZeros(zeros: ZeroExtent[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(zeros.length * ZERO_BYTES));
  zeros.forEach(({ gpa, length }, i) => {
    view.setBigUint64(i * ZERO_BYTES, gpa, true);
    view.setBigUint64(i * ZERO_BYTES + 8, BigInt(length), true);
  });
  return new Uint8Array(view.buffer);
}

function* unpackZeros(value: CborValue | undefined): Steps<Extents> {
  const view = records(value, 'zeros', ZERO_BYTES);
  const zeros = new Extents(view.byteLength / ZERO_BYTES);
  for (let at = 0; at < view.byteLength; at += ZERO_BYTES) {
    if (at % (ROUNDS_PER_STEP * ZERO_BYTES) === 0) yield;
    zeros.add(pages(view, at), pages(view, at + 8), 0, -1);
  }
  return zeros;
}

function packWords(words: Uint32Array): Uint8Array {
  const view = new DataView(new ArrayBuffer(words.length * 4));
  words.forEach((word, i) => {
    view.setUint32(i * 4, word, true);
  });
  return new Uint8Array(view.buffer);
}

/** A copy: words must be aligned. x86-64 is little-endian as the format is. */
function unpackWords(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(Uint8Array.prototype.slice.call(bytes).buffer);
}

function records(value: CborValue | undefined, name: string, unit: number): DataView {
  if (!(value instanceof Uint8Array) || value.length % unit !== 0) {
    throw bad(`${name} is not a byte string of ${unit}-byte records`);
  }
  return new DataView(value.buffer, value.byteOffset, value.byteLength);
}

/** A u64 of whole pages, below 2^53. */
function pages(view: DataView, at: number): number {
  const low = view.getUint32(at, true);
  const high = view.getUint32(at + 4, true);
  if (high >= 2 ** 21) throw bad('an address, length or offset is too large');
  if (low % PAGE_SIZE !== 0) throw bad('an address, length or offset is not of whole pages');
  return high * 2 ** 32 + low;
}

function small(value: CborValue | undefined, name: string, min: number, max: number): number {
  if (typeof value !== 'number' || value < min || value > max) throw bad(`${name} is out of range`);
  return value;
}

function maps(value: CborValue | undefined, name: string, limit: number): CborMap[] {
  if (!Array.isArray(value) || value.length > limit || !value.every(isMap)) {
    throw bad(`${name} is not an array of at most ${limit} maps`);
  }
  return value as CborMap[];
}

function requireKeys(map: CborMap, known: readonly string[]): void {
  for (const key in map) {
    if (!known.includes(key)) throw bad(`unknown key ${JSON.stringify(key).slice(0, 80)}`);
  }
}

const bad = (problem: string): Error => formatError(WHAT, problem);
