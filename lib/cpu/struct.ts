/**
 * Fixed C structs as tables. A table names each field once; size, decode and encode follow from it.
 *
 * Fields are little-endian and laid out in the order of the table, without implied alignment:
 * padding is a {@link pad} of its own, a jump is {@link at}. Integers of 64 bits are `bigint`,
 * smaller ones `number`. Names are the kernel's.
 */
import { requireArgument } from '../errors.js';

/** One integer or byte string of a struct, for tests and for tools that print layouts. */
export interface Leaf {
  path: string;
  offset: number;
  size: number;
}

/** How a value of type `T` lies in `size` bytes. */
export interface Codec<out T> {
  readonly size: number;
  read(view: DataView, offset: number): T;
  /** Throws ERR_INVALID_ARGUMENT, naming `path`, when `value` does not fit. */
  write(view: DataView, offset: number, value: unknown, path: string): void;
  leaves(offset: number, path: string): Leaf[];
}

/** What `encode` takes: any subset of the fields, at every depth. Arrays are given whole. */
export type Patch<T> = T extends bigint | number | Uint8Array
  ? T
  : T extends readonly (infer E)[]
    ? readonly Patch<E>[]
    : { readonly [K in keyof T]?: Patch<T[K]> | undefined };

/** Bytes that have no name: not decoded, and kept by `encode`. */
export interface Pad {
  readonly kind: 'pad';
  readonly size: number;
}
/** A field at a fixed offset of its struct. */
export interface Placed<out T> {
  readonly kind: 'placed';
  readonly offset: number;
  readonly codec: Codec<T>;
}
type Fields = Record<string, Codec<unknown> | Placed<unknown> | Pad>;
type FieldValue<F> = F extends Placed<infer T> ? T : F extends Codec<infer T> ? T : never;
/** The object that a table decodes to. */
export type FieldsValue<F extends Fields> = {
  -readonly [K in keyof F as F[K] extends Pad ? never : K]: FieldValue<F[K]>;
};
/** The object that a struct decodes to. */
export type Decoded<S> = S extends Codec<infer T> ? T : never;

export const pad = (size: number): Pad => ({ kind: 'pad', size });
export const at = <T>(offset: number, codec: Codec<T>): Placed<T> => ({
  kind: 'placed',
  offset,
  codec,
});

function integer(
  bits: 8 | 16 | 32,
  read: (view: DataView, offset: number) => number,
  write: (view: DataView, offset: number, value: number) => void,
): Codec<number> {
  const max = 2 ** bits - 1;
  return {
    size: bits / 8,
    read,
    write(view, offset, value, path) {
      const fits = Number.isInteger(value) && (value as number) >= 0 && (value as number) <= max;
      requireArgument(fits, `${path} must be an integer from 0 to ${max}`);
      write(view, offset, value as number);
    },
    leaves: (offset, path) => [{ path, offset, size: bits / 8 }],
  };
}

function longInteger(
  min: bigint,
  max: bigint,
  read: (view: DataView, offset: number) => bigint,
  write: (view: DataView, offset: number, value: bigint) => void,
): Codec<bigint> {
  return {
    size: 8,
    read,
    write(view, offset, value, path) {
      const fits = typeof value === 'bigint' && value >= min && value <= max;
      requireArgument(fits, `${path} must be a bigint from ${min} to ${max}`);
      write(view, offset, value);
    },
    leaves: (offset, path) => [{ path, offset, size: 8 }],
  };
}

export const u8 = integer(
  8,
  (view, offset) => view.getUint8(offset),
  (view, offset, value) => view.setUint8(offset, value),
);
export const u16 = integer(
  16,
  (view, offset) => view.getUint16(offset, true),
  (view, offset, value) => view.setUint16(offset, value, true),
);
export const u32 = integer(
  32,
  (view, offset) => view.getUint32(offset, true),
  (view, offset, value) => view.setUint32(offset, value, true),
);
export const u64 = longInteger(
  0n,
  2n ** 64n - 1n,
  (view, offset) => view.getBigUint64(offset, true),
  (view, offset, value) => view.setBigUint64(offset, value, true),
);
export const s64 = longInteger(
  -(2n ** 63n),
  2n ** 63n - 1n,
  (view, offset) => view.getBigInt64(offset, true),
  (view, offset, value) => view.setBigInt64(offset, value, true),
);

/** `size` bytes as they are, copied. */
export function bytes(size: number): Codec<Uint8Array> {
  return {
    size,
    read: (view, offset) => new Uint8Array(view.buffer, view.byteOffset + offset, size).slice(),
    write(view, offset, value, path) {
      const fits = value instanceof Uint8Array && value.length === size;
      requireArgument(fits, `${path} must be a Uint8Array of ${size} bytes`);
      new Uint8Array(view.buffer, view.byteOffset + offset, size).set(value);
    },
    leaves: (offset, path) => [{ path, offset, size }],
  };
}

/** `length` values, `stride` bytes apart (default: side by side). */
export function array<T>(item: Codec<T>, length: number, stride = item.size): Codec<T[]> {
  const indices = Array.from({ length }, (_, i) => i);
  return {
    size: stride * (length - 1) + item.size,
    read: (view, offset) => indices.map((i) => item.read(view, offset + i * stride)),
    write(view, offset, value, path) {
      const fits = Array.isArray(value) && value.length === length;
      requireArgument(fits, `${path} must be an array of ${length} values`);
      for (const i of indices) item.write(view, offset + i * stride, value[i], `${path}[${i}]`);
    },
    leaves: (offset, path) =>
      indices.flatMap((i) => item.leaves(offset + i * stride, `${path}[${i}]`)),
  };
}

/** Bit fields of one 64-bit word: name -> [lowest bit, width < 32]. Other bits are kept. */
export function bits64<const F extends Record<string, readonly [number, number]>>(
  fields: F,
): Codec<{ -readonly [K in keyof F]: number }> {
  const names = Object.keys(fields) as (keyof F & string)[];
  const mask = (width: number) => (1n << BigInt(width)) - 1n;
  return {
    size: 8,
    read(view, offset) {
      const word = view.getBigUint64(offset, true);
      const value = {} as { [K in keyof F]: number };
      for (const name of names) {
        const [low, width] = fields[name]!;
        value[name] = Number((word >> BigInt(low)) & mask(width));
      }
      return value;
    },
    write(view, offset, value, path) {
      let word = view.getBigUint64(offset, true);
      for (const [name, field] of patchEntries(value, names, path)) {
        const [low, width] = fields[name]!;
        const fits = Number.isInteger(field) && (field as number) >= 0;
        requireArgument(
          fits && (field as number) < 2 ** width,
          `${path}.${name} must be an integer from 0 to ${2 ** width - 1}`,
        );
        word &= ~(mask(width) << BigInt(low));
        word |= BigInt(field as number) << BigInt(low);
      }
      view.setBigUint64(offset, word, true);
    },
    leaves: (offset, path) => [{ path, offset, size: 8 }],
  };
}

/** The fields that a patch sets. A name that is not in the table is an error: it is a typo. */
function patchEntries(value: unknown, names: readonly string[], path: string): [string, unknown][] {
  requireArgument(
    typeof value === 'object' && value !== null && !Array.isArray(value),
    `${path} must be an object with any of: ${names.join(', ')}`,
  );
  const entries = Object.entries(value).filter(([, field]) => field !== undefined);
  for (const [name] of entries) {
    requireArgument(
      names.includes(name),
      `${path} has no field ${name}; it has: ${names.join(', ')}`,
    );
  }
  return entries;
}

/** A struct of the kernel's, of a fixed size. */
export class Struct<out T> implements Codec<T> {
  /** The kernel's name, for example `kvm_regs`. */
  readonly name: string;
  /** Bytes. */
  readonly size: number;
  readonly #placed: ReadonlyMap<string, { offset: number; codec: Codec<unknown> }>;

  constructor(name: string, fields: Fields, size?: number) {
    const placed = new Map<string, { offset: number; codec: Codec<unknown> }>();
    let end = 0;
    for (const [key, field] of Object.entries(fields)) {
      if ('kind' in field && field.kind === 'pad') {
        end += field.size;
      } else {
        const codec =
          'kind' in field ? (field as Placed<unknown>).codec : (field as Codec<unknown>);
        const offset = 'kind' in field ? (field as Placed<unknown>).offset : end;
        placed.set(key, { offset, codec });
        end = Math.max(end, offset + codec.size);
      }
    }
    requireArgument(size === undefined || end <= size, `${name} has fields beyond its size`);
    this.name = name;
    this.size = size ?? end;
    this.#placed = placed;
  }

  read(view: DataView, offset: number): T {
    const value: Record<string, unknown> = {};
    for (const [key, field] of this.#placed) {
      value[key] = field.codec.read(view, offset + field.offset);
    }
    return value as T;
  }

  write(view: DataView, offset: number, value: unknown, path: string): void {
    for (const [key, field] of patchEntries(value, [...this.#placed.keys()], path)) {
      const placed = this.#placed.get(key)!;
      placed.codec.write(view, offset + placed.offset, field, `${path}.${key}`);
    }
  }

  leaves(offset = 0, path = ''): Leaf[] {
    return [...this.#placed].flatMap(([key, field]) =>
      field.codec.leaves(offset + field.offset, path === '' ? key : `${path}.${key}`),
    );
  }

  /** Throws ERR_INVALID_ARGUMENT unless `raw` has exactly the struct's size. */
  decode(raw: Uint8Array): T {
    return this.read(this.#view(raw), 0);
  }

  /**
   * A copy of `base` (default: zeros) with the fields of `patch` put in; what `patch` does not
   * name, padding included, stays. Throws ERR_INVALID_ARGUMENT for a wrong size, an unknown
   * name, or a value that does not fit its field.
   */
  encode(patch: Patch<T>, base?: Uint8Array): Uint8Array {
    const out = base === undefined ? new Uint8Array(this.size) : Uint8Array.from(base);
    this.write(this.#view(out), 0, patch, this.name);
    return out;
  }

  #view(raw: Uint8Array): DataView {
    requireArgument(
      raw instanceof Uint8Array && raw.length === this.size,
      `${this.name} must be ${this.size} bytes, got ${raw?.length}`,
    );
    return new DataView(raw.buffer, raw.byteOffset, raw.length);
  }
}

/** A struct from its table; `size` where the struct is larger than its named fields. */
export function struct<const F extends Fields>(
  name: string,
  fields: F,
  size?: number,
): Struct<FieldsValue<F>> {
  return new Struct<FieldsValue<F>>(name, fields, size);
}
