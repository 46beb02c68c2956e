/**
 * The CBOR (RFC 8949) subset of state and memory index blobs. Encoding is cbor-x's. Decoding is
 * ours: general decoders, cbor-x among them, run tag extensions, accept duplicate keys and
 * indefinite lengths, and cannot cap depth, none of which hostile input may have.
 *
 * Subset: unsigned and negative integers, byte strings, text strings, arrays, maps with text keys.
 * Definite lengths in their shortest form, with one exception: an integer with an 8-byte argument
 * is a 64-bit field and decodes to `bigint`, whatever its value. No tags, floats, simple values.
 */
import { Encoder } from 'cbor-x';
import { formatError } from './failures.js';
import { LIMITS } from './format.js';
import { finish, ROUNDS_PER_STEP, type Steps } from './steps.js';

export type CborValue = number | bigint | string | Uint8Array | CborValue[] | CborMap;
export interface CborMap {
  [key: string]: CborValue;
}

const encoder = new Encoder({
  useRecords: false,
  variableMapSize: true,
  tagUint8Array: false,
  structuredClone: false,
});

/** Numbers must be integers of at most 32 bits; 64-bit fields are `bigint`. Callers have checked. */
export function encodeCbor(value: CborValue): Uint8Array {
  return encoder.encode(value);
}

/** Decodes one whole value; `ERR_SNAPSHOT_FORMAT` naming `what` for anything not in the subset. */
export function decodeCbor(bytes: Uint8Array, what: string): CborValue {
  return finish(cborSteps(bytes, what));
}

/** Byte strings up to this size are copied, longer ones are views of what is decoded. */
const COPIED_BYTES = 64 * 1024;

/** The same in steps. */
export function cborSteps(bytes: Uint8Array, what: string): Steps<CborValue> {
  return new Reader(bytes, what).value();
}

export function isMap(value: CborValue | undefined): value is CborMap {
  return typeof value === 'object' && !Array.isArray(value) && !(value instanceof Uint8Array);
}

const utf8 = new TextDecoder('utf-8', { fatal: true });

class ArrayFrame {
  readonly items: CborValue[] = [];
  readonly map = undefined;
  left: number;
  constructor(left: number) {
    this.left = left;
  }
}

class MapFrame {
  readonly map: CborMap;
  key = '';
  left: number;
  constructor(left: number, map: CborMap) {
    this.left = left;
    this.map = map;
  }
}

/** An array or a map that is being read, with `left` values to come. */
type Frame = ArrayFrame | MapFrame;

class Reader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #what: string;
  #at = 0;

  constructor(bytes: Uint8Array, what: string) {
    // A plain view: `slice` of a Buffer would not copy.
    this.#bytes = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#what = what;
  }

  *value(): Steps<CborValue> {
    const open: Frame[] = [];
    for (let count = 1; ; count++) {
      if (count % ROUNDS_PER_STEP === 0) yield;
      if (count > LIMITS.cborValues) throw this.#bad(`more than ${LIMITS.cborValues} values`);
      const head = this.#head(open.length);
      if (head instanceof ArrayFrame || head instanceof MapFrame) {
        if (head.map) head.key = this.#key(head.map);
        open.push(head);
        continue;
      }
      let value: CborValue = head;
      // It ends as many arrays and maps as it is the last of.
      for (;;) {
        const frame = open.at(-1);
        if (frame === undefined) {
          if (this.#at !== this.#bytes.length) throw this.#bad('bytes after the value');
          return value;
        }
        if (frame.map) frame.map[frame.key] = value;
        else frame.items.push(value);
        frame.left--;
        if (frame.left > 0) {
          if (frame.map) frame.key = this.#key(frame.map);
          break;
        }
        open.pop();
        value = frame.map ?? frame.items;
      }
    }
  }

  /** A whole value, or an array or a map that is to be filled. */
  #head(depth: number): CborValue | Frame {
    if (depth > LIMITS.depth) throw this.#bad(`nested deeper than ${LIMITS.depth} levels`);
    const initial = this.#byte();
    const major = initial >> 5;
    const info = initial & 0x1f;
    if (major <= 1) return this.#integer(major === 1, info);
    if (major > 5) throw this.#bad('a tag, float or simple value');
    const length = this.#length(info);
    if (major === 2) return length > COPIED_BYTES ? this.#take(length) : this.#take(length).slice();
    if (major === 3) return this.#text(length);
    if (major === 4) return length === 0 ? [] : new ArrayFrame(length);
    // No prototype: `__proto__` and `constructor` are keys like others, to be refused by schema.
    const map: CborMap = Object.create(null);
    return length === 0 ? map : new MapFrame(length, map);
  }

  #integer(negative: boolean, info: number): number | bigint {
    if (info === 27) {
      const argument = this.#view.getBigUint64(this.#skip(8));
      return negative ? -1n - argument : argument;
    }
    const argument = this.#argument(info);
    return negative ? -1 - argument : argument;
  }

  /** The argument of a head with at most 4 bytes, which must be the shortest form of its value. */
  #argument(info: number): number {
    if (info < 24) return info;
    let value: number;
    let least: number;
    if (info === 24) [value, least] = [this.#byte(), 24];
    else if (info === 25) [value, least] = [this.#view.getUint16(this.#skip(2)), 0x100];
    else if (info === 26) [value, least] = [this.#view.getUint32(this.#skip(4)), 0x10000];
    else throw this.#bad('an indefinite, reserved or 64-bit length');
    if (value < least) throw this.#bad('a head that is not in its shortest form');
    return value;
  }

  /** Each byte, element or pair takes a byte at least: what cannot fit is refused before use. */
  #length(info: number): number {
    const length = this.#argument(info);
    if (length > this.#bytes.length - this.#at) throw this.#bad('a length beyond the end');
    return length;
  }

  #text(length: number): string {
    try {
      return utf8.decode(this.#take(length));
    } catch (cause) {
      throw this.#bad('a text string that is not UTF-8', cause);
    }
  }

  #key(map: CborMap): string {
    const initial = this.#byte();
    if (initial >> 5 !== 3) throw this.#bad('a map key that is not text');
    const key = this.#text(this.#length(initial & 0x1f));
    if (key in map) throw this.#bad(`duplicate key ${JSON.stringify(key).slice(0, 80)}`);
    return key;
  }

  #byte(): number {
    return this.#bytes[this.#skip(1)] as number;
  }

  #take(length: number): Uint8Array {
    const start = this.#skip(length);
    return this.#bytes.subarray(start, start + length);
  }

  #skip(length: number): number {
    const start = this.#at;
    if (length > this.#bytes.length - start) throw this.#bad('it ends too early');
    this.#at = start + length;
    return start;
  }

  #bad(problem: string, cause?: unknown): Error {
    return formatError(this.#what, `CBOR at byte ${this.#at}: ${problem}`, cause);
  }
}
