/**
 * The "newc" cpio format of an initramfs (Linux Documentation/driver-api/early-userspace/
 * buffer-format.rst): a header of 8-digit hexadecimal fields, the name, the data, each padded to 4.
 */
import { requireArgument } from '../../errors.js';

const MAGIC = '070701';
const HEADER_SIZE = 110;
const TRAILER = Buffer.from('TRAILER!!!');
/** Archives end on a block, as those of cpio(1) do. */
const BLOCK = 512;
const MAX_FIELD = 0xffffffff;
/** PATH_MAX of the kernel, with the NUL. */
const MAX_NAME = 4096;

export interface CpioEntry {
  /** Relative to the root of the archive; bytes, as file names need not be UTF-8. */
  name: Buffer;
  inode: number;
  /** `st_mode`: type and permissions. */
  mode: number;
  uid: number;
  gid: number;
  links: number;
  deviceMajor: number;
  deviceMinor: number;
  /** Content of a file, target of a symbolic link. */
  data: Uint8Array;
}

const padding = (length: number, to: number): Buffer => Buffer.alloc((to - (length % to)) % to);

function encodeHeader(entry: CpioEntry): Buffer {
  const fields = [
    entry.inode,
    entry.mode,
    entry.uid,
    entry.gid,
    entry.links,
    0, // mtime: the same directory gives the same archive
    entry.data.length,
    0,
    0,
    entry.deviceMajor,
    entry.deviceMinor,
    entry.name.length + 1,
    0, // checksum: none in this format
  ];
  const digits = fields.map((field) => {
    requireArgument(
      Number.isInteger(field) && field >= 0 && field <= MAX_FIELD,
      `${entry.name.toString()} has a property of ${field}, which a cpio header cannot hold`,
    );
    return field.toString(16).toUpperCase().padStart(8, '0');
  });
  return Buffer.from(MAGIC + digits.join(''), 'latin1');
}

function encodeEntry(entry: CpioEntry): Uint8Array[] {
  requireArgument(
    entry.name.length < MAX_NAME,
    `${entry.name.toString()} is longer than the ${MAX_NAME - 1} bytes that the kernel unpacks`,
  );
  const named = HEADER_SIZE + entry.name.length + 1;
  return [
    encodeHeader(entry),
    entry.name,
    Buffer.alloc(1),
    padding(named, 4),
    entry.data,
    padding(entry.data.length, 4),
  ];
}

/** A whole archive with its trailer. */
export function encodeCpio(entries: readonly CpioEntry[]): Uint8Array {
  const parts: Uint8Array[] = [];
  for (const entry of entries) {
    requireArgument(
      !entry.name.equals(TRAILER),
      'a file named TRAILER!!! would end the archive; rename it',
    );
    parts.push(...encodeEntry(entry));
  }
  const trailer: CpioEntry = {
    name: TRAILER,
    inode: 0,
    mode: 0,
    uid: 0,
    gid: 0,
    links: 1,
    deviceMajor: 0,
    deviceMinor: 0,
    data: new Uint8Array(0),
  };
  parts.push(...encodeEntry(trailer));
  parts.push(
    padding(
      parts.reduce((sum, part) => sum + part.length, 0),
      BLOCK,
    ),
  );
  return Buffer.concat(parts);
}
