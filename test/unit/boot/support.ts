/** Synthetic images and readers for boot plans, independent of the code under test. */
import { expect } from 'vitest';
import type { BootPlan } from '../../../lib/boot/index.js';

export interface TestSegment {
  type?: number;
  gpa: number;
  data: Uint8Array;
  memorySize?: number;
  /** `p_align`; default 4. */
  alignment?: number;
}

/** An x86-64 ELF executable, by the System V gABI. */
export function elf64(entry: number, segments: readonly TestSegment[]): Buffer {
  const headers = 64 + segments.length * 56;
  const size = segments.reduce((sum, segment) => sum + segment.data.length, headers);
  const bytes = Buffer.alloc(size);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  bytes.writeUInt16LE(2, 16);
  bytes.writeUInt16LE(62, 18);
  bytes.writeUInt32LE(1, 20);
  bytes.writeBigUInt64LE(BigInt(entry), 24);
  bytes.writeBigUInt64LE(64n, 32);
  bytes.writeUInt16LE(64, 52);
  bytes.writeUInt16LE(56, 54);
  bytes.writeUInt16LE(segments.length, 56);
  let offset = headers;
  segments.forEach((segment, index) => {
    const at = 64 + index * 56;
    bytes.writeUInt32LE(segment.type ?? 1, at);
    bytes.writeBigUInt64LE(BigInt(offset), at + 8);
    bytes.writeBigUInt64LE(BigInt(segment.gpa), at + 16);
    bytes.writeBigUInt64LE(BigInt(segment.gpa), at + 24);
    bytes.writeBigUInt64LE(BigInt(segment.data.length), at + 32);
    bytes.writeBigUInt64LE(BigInt(segment.memorySize ?? segment.data.length), at + 40);
    bytes.writeBigUInt64LE(BigInt(segment.alignment ?? 4), at + 48);
    bytes.set(segment.data, offset);
    offset += segment.data.length;
  });
  return bytes;
}

/** An i386 ELF executable with one segment. */
export function elf32(entry: number, gpa: number, data: Uint8Array): Buffer {
  const bytes = Buffer.alloc(52 + 32 + data.length);
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 1, 1, 1]);
  bytes.writeUInt16LE(2, 16);
  bytes.writeUInt16LE(3, 18);
  bytes.writeUInt32LE(1, 20);
  bytes.writeUInt32LE(entry, 24);
  bytes.writeUInt32LE(52, 28);
  bytes.writeUInt16LE(52, 40);
  bytes.writeUInt16LE(32, 42);
  bytes.writeUInt16LE(1, 44);
  [1, 84, gpa, gpa, data.length, data.length, 5, 4].forEach((field, index) => {
    bytes.writeUInt32LE(field, 52 + index * 4);
  });
  bytes.set(data, 84);
  return bytes;
}

export interface TestNote {
  name: string;
  type: number;
  description: Uint8Array;
}

/** Notes one after the other, name and description padded to `packing`. */
export function encodeNotes(notes: readonly TestNote[], packing: number): Buffer {
  const padded = (bytes: Buffer): Buffer =>
    Buffer.concat([bytes, Buffer.alloc((packing - (bytes.length % packing)) % packing)]);
  return Buffer.concat(
    notes.map(({ name, type, description }) => {
      const header = Buffer.alloc(12);
      header.writeUInt32LE(name.length + 1, 0);
      header.writeUInt32LE(description.length, 4);
      header.writeUInt32LE(type, 8);
      const head = padded(Buffer.concat([header, Buffer.from(`${name}\0`)]));
      return Buffer.concat([head, padded(Buffer.from(description))]);
    }),
  );
}

/** The note that names a PVH entry point. */
export function pvhNote(entry: number): TestSegment {
  const description = Buffer.alloc(8);
  description.writeBigUInt64LE(BigInt(entry));
  return { type: 4, gpa: 0, data: encodeNotes([{ name: 'Xen', type: 18, description }], 4) };
}

/** A bzImage with a setup header as Linux 6.1 has it and a payload of `payloadSize` bytes. */
export function bzImage(payloadSize = 0x4000): Buffer {
  const bytes = Buffer.alloc(2 * 512 + payloadSize, 0x90);
  bytes.fill(0, 0, 1024);
  bytes.writeUInt8(1, 0x1f1);
  bytes.writeUInt32LE(payloadSize / 16, 0x1f4);
  bytes.writeUInt16LE(0xaa55, 0x1fe);
  bytes.set([0xeb, 0x6a], 0x200);
  bytes.write('HdrS', 0x202, 'latin1');
  bytes.writeUInt16LE(0x20f, 0x206);
  bytes.writeUInt8(1, 0x211);
  bytes.writeUInt32LE(0x7fffffff, 0x22c);
  bytes.writeUInt32LE(0x200000, 0x230);
  bytes.writeUInt8(1, 0x234);
  bytes.writeUInt16LE(0x7f, 0x236);
  bytes.writeUInt32LE(2047, 0x238);
  bytes.writeBigUInt64LE(0x1000000n, 0x258);
  bytes.writeUInt32LE(0x100000, 0x260);
  return bytes;
}

/** Checks what every plan promises: all writes inside RAM, none overlapping. */
export function expectSoundPlan(plan: BootPlan, memory: number): void {
  const gib = 1024 ** 3;
  const low = Math.min(memory, 3 * gib);
  const high = memory > low ? 4 * gib + memory - low : 0;
  const ranges = plan.writes
    .map(({ gpa, data }) => ({ start: Number(gpa), end: Number(gpa) + data.length }))
    .sort((a, b) => a.start - b.start);
  ranges.forEach(({ start, end }, index) => {
    const inLow = start >= 0 && end <= low;
    const inHigh = start >= 4 * gib && end <= high;
    expect(inLow || inHigh, `[${start}, ${end}) in RAM`).toBe(true);
    expect(start).toBeGreaterThanOrEqual(ranges[index - 1]?.end ?? 0);
  });
}

/** Guest memory as a plan leaves it; zeros where nothing was written. */
export function readPlan(plan: BootPlan, gpa: bigint | number, length: number): Buffer {
  const out = Buffer.alloc(length);
  const from = Number(gpa);
  for (const write of plan.writes) {
    const start = Math.max(from, Number(write.gpa));
    const end = Math.min(from + length, Number(write.gpa) + write.data.length);
    if (start >= end) continue;
    const base = Number(write.gpa);
    out.set(write.data.subarray(start - base, end - base), start - from);
  }
  return out;
}

/** Walks four-level page tables of a plan: physical address and whether ring 3 may use it. */
export function translate(
  plan: BootPlan,
  cr3: bigint,
  address: bigint,
): { gpa: bigint; user: boolean; writable: boolean } | undefined {
  let table = cr3;
  let user = true;
  let writable = true;
  for (const shift of [39n, 30n, 21n, 12n]) {
    const index = (address >> shift) & 511n;
    const entry = readPlan(plan, table + index * 8n, 8).readBigUInt64LE();
    if (!(entry & 1n)) return undefined;
    user &&= (entry & 4n) !== 0n;
    writable &&= (entry & 2n) !== 0n;
    const frame = entry & 0xffffffffff000n;
    if (shift === 12n || entry & 0x80n) {
      return { gpa: frame + (address & ((1n << shift) - 1n)), user, writable };
    }
    table = frame;
  }
  return undefined;
}

export interface Descriptor {
  base: bigint;
  limit: number;
  type: number;
  s: number;
  dpl: number;
  present: number;
  l: number;
  db: number;
  g: number;
}

/** Decodes the descriptor that a selector names (Intel SDM volume 3, figure 3-8). */
export function descriptor(plan: BootPlan, gdt: bigint, selector: number): Descriptor {
  const raw = readPlan(plan, gdt + BigInt(selector & 0xfff8), 16);
  const g = raw[6]! >> 7;
  const limit = raw.readUInt16LE(0) | ((raw[6]! & 0xf) << 16);
  const s = (raw[5]! >> 4) & 1;
  const low = BigInt(raw.readUInt16LE(2) | (raw[4]! << 16)) | (BigInt(raw[7]!) << 24n);
  return {
    base: s ? low : low | (BigInt(raw.readUInt32LE(8)) << 32n),
    limit: g ? limit * 4096 + 4095 : limit,
    type: raw[5]! & 0xf,
    s,
    dpl: (raw[5]! >> 5) & 3,
    present: raw[5]! >> 7,
    l: (raw[6]! >> 5) & 1,
    db: (raw[6]! >> 6) & 1,
    g,
  };
}
