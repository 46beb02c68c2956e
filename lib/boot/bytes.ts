import { KvmsnapError } from '../errors.js';

/** Fills one little-endian struct of fixed size, field by field. */
export class StructWriter {
  readonly bytes: Uint8Array;
  readonly #view: DataView;

  constructor(size: number) {
    this.bytes = new Uint8Array(size);
    this.#view = new DataView(this.bytes.buffer);
  }

  u8(offset: number, value: number): this {
    this.#view.setUint8(offset, value);
    return this;
  }
  u16(offset: number, value: number): this {
    this.#view.setUint16(offset, value, true);
    return this;
  }
  u32(offset: number, value: number): this {
    this.#view.setUint32(offset, value, true);
    return this;
  }
  u64(offset: number, value: bigint): this {
    this.#view.setBigUint64(offset, value, true);
    return this;
  }
  raw(offset: number, value: Uint8Array): this {
    this.bytes.set(value, offset);
    return this;
  }
  ascii(offset: number, value: string): this {
    return this.raw(offset, new TextEncoder().encode(value));
  }
}

/** Reads little-endian fields of a hostile image: a read beyond its end is `ERR_KERNEL_IMAGE`. */
export class StructReader {
  readonly bytes: Uint8Array;
  readonly #view: DataView;
  readonly #what: string;

  constructor(bytes: Uint8Array, what: string) {
    this.bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#what = what;
  }

  get length(): number {
    return this.bytes.length;
  }
  u8(offset: number): number {
    return this.#view.getUint8(this.#check(offset, 1));
  }
  u16(offset: number): number {
    return this.#view.getUint16(this.#check(offset, 2), true);
  }
  u32(offset: number): number {
    return this.#view.getUint32(this.#check(offset, 4), true);
  }
  u64(offset: number): bigint {
    return this.#view.getBigUint64(this.#check(offset, 8), true);
  }
  /** A view, not a copy. */
  slice(offset: number, length: number): Uint8Array {
    this.#check(offset, length);
    return this.bytes.subarray(offset, offset + length);
  }

  #check(offset: number, length: number): number {
    if (offset < 0 || length < 0 || offset + length > this.bytes.length) {
      throw new KvmsnapError(
        'ERR_KERNEL_IMAGE',
        `${this.#what} is cut off: it needs ${offset + length} bytes and has ` +
          `${this.bytes.length}; get the file again`,
      );
    }
    return offset;
  }
}

export function concat(parts: readonly Uint8Array[]): Uint8Array {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    all.set(part, offset);
    offset += part.length;
  }
  return all;
}

export const alignUp = (value: bigint, alignment: bigint): bigint =>
  ((value + alignment - 1n) / alignment) * alignment;
export const alignDown = (value: bigint, alignment: bigint): bigint =>
  (value / alignment) * alignment;
