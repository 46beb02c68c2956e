/** Arrays of structs whose number is given by the length of the bytes. */
import { requireArgument } from '../errors.js';
import type { Struct } from './struct.js';

/** Throws ERR_INVALID_ARGUMENT unless `raw` is a whole number of structs, at most `max`. */
export function decodeList<T>(item: Struct<T>, max: number, raw: Uint8Array): T[] {
  const count = raw.length / item.size;
  requireArgument(
    Number.isInteger(count) && count <= max,
    `${item.name}[] must be a multiple of ${item.size} bytes and at most ${max} entries, got ${raw.length} bytes`,
  );
  return Array.from({ length: count }, (_, i) =>
    item.decode(raw.subarray(i * item.size, (i + 1) * item.size)),
  );
}

/** Throws ERR_INVALID_ARGUMENT for an entry that does not fit, or more than `max`. */
export function encodeList<T>(item: Struct<T>, max: number, values: readonly T[]): Uint8Array {
  requireArgument(
    Array.isArray(values) && values.length <= max,
    `${item.name}[] must be an array of at most ${max} entries`,
  );
  const out = new Uint8Array(values.length * item.size);
  const view = new DataView(out.buffer);
  values.forEach((value, i) => {
    item.write(view, i * item.size, value, `${item.name}[${i}]`);
  });
  return out;
}
