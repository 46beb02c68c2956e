/** The header that every system description table starts with (ACPI specification 6.5, 5.2.6). */
import { StructWriter } from '../bytes.js';

export const HEADER_SIZE = 36;
export const OEM_ID = 'KVMSNP';
const OEM_TABLE_ID = 'KVMSNAP ';
const CREATOR_ID = 'KVMS';

/** The value that makes the bytes of a table add up to 0 modulo 256. */
export const checksum = (bytes: Uint8Array): number =>
  (256 - (bytes.reduce((sum, byte) => sum + byte, 0) & 0xff)) & 0xff;

/** A whole table: header, `body`, checksum. */
export function table(signature: string, revision: number, body: Uint8Array): Uint8Array {
  const bytes = new StructWriter(HEADER_SIZE + body.length)
    .ascii(0, signature)
    .u32(4, HEADER_SIZE + body.length)
    .u8(8, revision)
    .ascii(10, OEM_ID)
    .ascii(16, OEM_TABLE_ID)
    .u32(24, 1)
    .ascii(28, CREATOR_ID)
    .u32(32, 1)
    .raw(HEADER_SIZE, body);
  return bytes.u8(9, checksum(bytes.bytes)).bytes;
}
