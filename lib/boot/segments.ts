/**
 * Segment registers and the descriptors they were loaded from (Intel SDM volume 3, 3.4.5 and
 * 8.2.3). KVM takes the hidden part of a segment register from us, so that a guest runs before it
 * ever loads one; the descriptor tables must say the same for when it does.
 */
import type { Segment } from '../cpu/registers.js';
import { StructWriter } from './bytes.js';

/** Code: execute, read, accessed. Data: read, write, accessed. TSS: busy, 32- or 64-bit. */
const TYPE_CODE = 11;
const TYPE_DATA = 3;
const TYPE_TSS_BUSY = 11;
const TYPE_LDT = 2;

const FLAT_LIMIT = 0xffffffff;

const EMPTY: Segment = {
  base: 0n,
  limit: 0,
  selector: 0,
  type: 0,
  present: 0,
  dpl: 0,
  db: 0,
  s: 0,
  l: 0,
  g: 0,
  avl: 0,
  unusable: 0,
};

/** Base 0, 4 GiB. `bits` 64 sets L for code; data segments have no 64-bit form. */
export function flatSegment(
  kind: 'code' | 'data',
  bits: 32 | 64,
  selector: number,
  dpl: number,
): Segment {
  const long = kind === 'code' && bits === 64;
  return {
    ...EMPTY,
    limit: FLAT_LIMIT,
    selector,
    type: kind === 'code' ? TYPE_CODE : TYPE_DATA,
    present: 1,
    dpl,
    db: long ? 0 : 1,
    s: 1,
    l: long ? 1 : 0,
    g: 1,
  };
}

/** A segment as real mode loads it: base = selector * 16, 64 KiB. */
export function realSegment(kind: 'code' | 'data', selector: number): Segment {
  return {
    ...EMPTY,
    base: BigInt(selector) << 4n,
    limit: 0xffff,
    selector,
    type: kind === 'code' ? TYPE_CODE : TYPE_DATA,
    present: 1,
    s: 1,
  };
}

/** The task register. VM entry on Intel needs a busy TSS in it, even where none is used. */
export function tssSegment(base: bigint, limit: number, selector: number): Segment {
  return { ...EMPTY, base, limit, selector, type: TYPE_TSS_BUSY, present: 1 };
}

/** LDTR with nothing in it. */
export const noLdt = (): Segment => ({ ...EMPTY, type: TYPE_LDT, unusable: 1 });

/** The low 8 bytes of the descriptor that gives `segment`. */
function encodeLow(segment: Segment): bigint {
  const limit = BigInt(segment.g ? segment.limit >>> 12 : segment.limit);
  const access = BigInt(
    segment.type | (segment.s << 4) | (segment.dpl << 5) | (segment.present << 7),
  );
  const flags = BigInt(segment.avl | (segment.l << 1) | (segment.db << 2) | (segment.g << 3));
  return (
    (limit & 0xffffn) |
    ((segment.base & 0xffffffn) << 16n) |
    (access << 40n) |
    (((limit >> 16n) & 0xfn) << 48n) |
    (flags << 52n) |
    (((segment.base >> 24n) & 0xffn) << 56n)
  );
}

/**
 * A GDT whose entries stand where their selectors point. `bits` 64 makes system descriptors 16
 * bytes long (Intel SDM volume 3, 8.2.3).
 */
export function encodeGdt(segments: readonly Segment[], bits: 32 | 64): Uint8Array {
  const size = (segment: Segment): number => (segment.s === 0 && bits === 64 ? 16 : 8);
  const ends = segments.map((segment) => (segment.selector & 0xfff8) + size(segment));
  const gdt = new StructWriter(Math.max(8, ...ends));
  for (const segment of segments) {
    const offset = segment.selector & 0xfff8;
    gdt.u64(offset, encodeLow(segment));
    if (size(segment) === 16) gdt.u64(offset + 8, segment.base >> 32n);
  }
  return gdt.bytes;
}
