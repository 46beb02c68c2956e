/**
 * An encoder for the part of AML that describes fixed devices (ACPI specification 6.5, chapter 20).
 * Each function returns the encoded term; terms nest by being passed as bytes.
 */
import { requireArgument } from '../../errors.js';
import { concat, StructWriter } from '../bytes.js';

const ZERO_OP = 0x00;
const ONE_OP = 0x01;
const NAME_OP = 0x08;
const BYTE_PREFIX = 0x0a;
const WORD_PREFIX = 0x0b;
const DWORD_PREFIX = 0x0c;
const STRING_PREFIX = 0x0d;
const QWORD_PREFIX = 0x0e;
const SCOPE_OP = 0x10;
const BUFFER_OP = 0x11;
const PACKAGE_OP = 0x12;
const METHOD_OP = 0x14;
const EXT_OP = 0x5b;
const DEVICE_OP = 0x82;
const ROOT_CHAR = 0x5c;
const ARG0_OP = 0x68;
const NOTIFY_OP = 0x86;
const LEQUAL_OP = 0x93;
const IF_OP = 0xa0;
/** MethodFlags: serialized (20.2.5.2). */
const SERIALIZED = 1 << 3;

export type Aml = Uint8Array;

const bytes = (...values: number[]): Aml => Uint8Array.from(values);
const ascii = (text: string): Aml => new TextEncoder().encode(text);

/** A path of one segment, `NAME` or `\NAME`; shorter names are padded with underscores (20.2.2). */
export function path(name: string): Aml {
  const root = name.startsWith('\\');
  const segment = root ? name.slice(1) : name;
  requireArgument(
    /^[A-Z_][A-Z0-9_]{0,3}$/.test(segment),
    `"${name}" is no ACPI name: one to four of A-Z, 0-9 and _, not starting with a digit`,
  );
  return concat([root ? bytes(ROOT_CHAR) : bytes(), ascii(segment.padEnd(4, '_'))]);
}

/** The shortest encoding of an unsigned integer up to 64 bits (20.2.3). */
export function integer(value: number | bigint): Aml {
  const whole = typeof value === 'bigint' || Number.isSafeInteger(value);
  requireArgument(
    whole && value >= 0 && value < 1n << 64n,
    `${value} is no 64-bit unsigned integer`,
  );
  const big = BigInt(value);
  if (big === 0n) return bytes(ZERO_OP);
  if (big === 1n) return bytes(ONE_OP);
  if (big < 1n << 8n) return bytes(BYTE_PREFIX, Number(big));
  if (big < 1n << 16n) return new StructWriter(3).u8(0, WORD_PREFIX).u16(1, Number(big)).bytes;
  if (big < 1n << 32n) return new StructWriter(5).u8(0, DWORD_PREFIX).u32(1, Number(big)).bytes;
  return new StructWriter(9).u8(0, QWORD_PREFIX).u64(1, big).bytes;
}

export function string(text: string): Aml {
  requireArgument(/^[ -~]*$/.test(text), 'an AML string holds printable ASCII only');
  return concat([bytes(STRING_PREFIX), ascii(text), bytes(0)]);
}

/** A compressed PNP ID such as `PNP0501` (19.6.38): the bytes stand in the order of ISA PNP. */
export function eisaId(id: string): Aml {
  requireArgument(/^[A-Z]{3}[0-9A-F]{4}$/.test(id), `"${id}" is no EISA ID`);
  const letter = (index: number): number => id.charCodeAt(index) - 0x40;
  const vendor = (letter(0) << 10) | (letter(1) << 5) | letter(2);
  const product = Number.parseInt(id.slice(3), 16);
  return bytes(DWORD_PREFIX, vendor >> 8, vendor & 0xff, product >> 8, product & 0xff);
}

/** PkgLength counts itself, so its own size depends on what it says (20.2.4). */
function withLength(content: Aml): Aml {
  for (let extra = 0; extra <= 3; extra++) {
    const total = content.length + 1 + extra;
    if (extra === 0 && total < 1 << 6) return concat([bytes(total), content]);
    if (extra > 0 && total < 1 << (4 + 8 * extra)) {
      const rest = Array.from({ length: extra }, (_, i) => (total >> (4 + 8 * i)) & 0xff);
      return concat([bytes((extra << 6) | (total & 0xf), ...rest), content]);
    }
  }
  throw new RangeError('an AML package is larger than 256 MiB');
}

export const name = (at: string, value: Aml): Aml => concat([bytes(NAME_OP), path(at), value]);

export const scope = (at: string, terms: readonly Aml[]): Aml =>
  concat([bytes(SCOPE_OP), withLength(concat([path(at), ...terms]))]);

export const device = (at: string, terms: readonly Aml[]): Aml =>
  concat([bytes(EXT_OP, DEVICE_OP), withLength(concat([path(at), ...terms]))]);

export function packageOf(elements: readonly Aml[]): Aml {
  requireArgument(elements.length <= 255, 'an AML package has at most 255 elements');
  return concat([bytes(PACKAGE_OP), withLength(concat([bytes(elements.length), ...elements]))]);
}

export const buffer = (content: Uint8Array): Aml =>
  concat([bytes(BUFFER_OP), withLength(concat([integer(content.length), content]))]);

/** A method of `args` arguments that runs once at a time. */
export function method(at: string, args: number, terms: readonly Aml[]): Aml {
  requireArgument(args >= 0 && args <= 7, 'an AML method has at most 7 arguments');
  const content = concat([path(at), bytes(args | SERIALIZED), ...terms]);
  return concat([bytes(METHOD_OP), withLength(content)]);
}

/** `If (Arg0 == value) { … }`. */
export const ifArg0Is = (value: number, terms: readonly Aml[]): Aml =>
  concat([bytes(IF_OP), withLength(concat([bytes(LEQUAL_OP, ARG0_OP), integer(value), ...terms]))]);

/** `Notify (at, value)` for a device in the same scope or one above. */
export const notify = (at: string, value: number): Aml =>
  concat([bytes(NOTIFY_OP), path(at), integer(value)]);
