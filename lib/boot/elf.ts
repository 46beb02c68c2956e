/**
 * Executable ELF images for x86 (System V gABI, chapters 4 and 5), read as hostile input: every
 * offset and length is checked against the file before use.
 */
import { KvmsnapError } from '../errors.js';
import { StructReader } from './bytes.js';

const PT_LOAD = 1;
const PT_NOTE = 4;
const ET_EXEC = 2;
const ET_DYN = 3;
const EM_386 = 3;
const EM_X86_64 = 62;

/** Far more than any kernel has; bounds the work that a hostile file can ask for. */
const MAX_PROGRAM_HEADERS = 256;
const MAX_NOTE_BYTES = 64 * 1024;
const NOTE_HEADER = 12;
const MAX_NOTE_NAME = 64;

/** What to load: `data`, then zeros up to `memorySize` bytes, at physical address `gpa`. */
export interface ElfSegment {
  gpa: bigint;
  data: Uint8Array;
  memorySize: bigint;
}

export interface ElfNote {
  name: string;
  type: number;
  description: Uint8Array;
}

export interface ElfImage {
  bits: 32 | 64;
  entry: bigint;
  /** All PT_LOADs with content, in file order. */
  segments: ElfSegment[];
  notes: ElfNote[];
}

interface ProgramHeader {
  type: number;
  offset: bigint;
  gpa: bigint;
  fileSize: bigint;
  memorySize: bigint;
  alignment: bigint;
}

const refuse = (message: string): KvmsnapError =>
  new KvmsnapError('ERR_KERNEL_IMAGE', `ELF image: ${message}`);

export const isElf = (image: Uint8Array): boolean =>
  image[0] === 0x7f && image[1] === 0x45 && image[2] === 0x4c && image[3] === 0x46;

/** Throws `ERR_KERNEL_IMAGE` for anything but a whole, statically linked x86 executable. */
export function parseElf(image: Uint8Array): ElfImage {
  const file = new StructReader(image, 'ELF image');
  if (!isElf(image)) throw refuse('no ELF magic at its start');
  const elfClass = file.u8(4);
  if (elfClass !== 1 && elfClass !== 2) throw refuse(`unknown class ${elfClass}`);
  const bits = elfClass === 2 ? 64 : 32;
  if (file.u8(5) !== 1) throw refuse('is big-endian; build it for x86');
  const type = file.u16(16);
  if (type === ET_DYN) {
    throw refuse('is position-independent (ET_DYN); link it at a fixed address with -no-pie');
  }
  if (type !== ET_EXEC) throw refuse(`has type ${type}; an executable (ET_EXEC) is needed`);
  const machine = file.u16(18);
  if (machine !== (bits === 64 ? EM_X86_64 : EM_386)) {
    throw refuse(`is for machine ${machine}, not for ${bits}-bit x86`);
  }
  const headers = readProgramHeaders(file, bits);
  const segments = headers
    .filter((header) => header.type === PT_LOAD && header.memorySize > 0n)
    .map((header) => readSegment(file, header));
  if (segments.length === 0) throw refuse('has no PT_LOAD segment, so nothing to load');
  const notes = headers
    .filter((header) => header.type === PT_NOTE)
    .flatMap((header) => readNotes(file, header));
  return {
    bits,
    entry: bits === 64 ? file.u64(24) : BigInt(file.u32(24)),
    segments,
    notes,
  };
}

function readProgramHeaders(file: StructReader, bits: 32 | 64): ProgramHeader[] {
  const long = bits === 64;
  const offset = long ? file.u64(32) : BigInt(file.u32(28));
  const entrySize = file.u16(long ? 54 : 42);
  const count = file.u16(long ? 56 : 44);
  if (entrySize !== (long ? 56 : 32)) throw refuse(`has program headers of ${entrySize} bytes`);
  if (count > MAX_PROGRAM_HEADERS) {
    throw refuse(`has ${count} program headers; at most ${MAX_PROGRAM_HEADERS} are allowed`);
  }
  if (offset > BigInt(file.length)) throw refuse('its program headers lie behind its end');
  const headers: ProgramHeader[] = [];
  for (let i = 0; i < count; i++) {
    const at = Number(offset) + i * entrySize;
    const word = (index: number): bigint =>
      long ? file.u64(at + index * 8) : BigInt(file.u32(at + index * 4));
    // p_flags is second in the 64-bit header and last but one in the 32-bit one.
    headers.push({
      type: file.u32(at),
      offset: word(1),
      gpa: word(3),
      fileSize: word(4),
      memorySize: word(5),
      alignment: word(long ? 6 : 7),
    });
  }
  return headers;
}

function contentOf(file: StructReader, header: ProgramHeader, what: string): Uint8Array {
  if (header.offset + header.fileSize > BigInt(file.length)) {
    throw refuse(
      `${what} reaches to byte ${header.offset + header.fileSize}, behind the end at ` +
        `${file.length}; the file is cut off`,
    );
  }
  return file.slice(Number(header.offset), Number(header.fileSize));
}

function readSegment(file: StructReader, header: ProgramHeader): ElfSegment {
  if (header.fileSize > header.memorySize) {
    throw refuse('has a segment with more bytes in the file than in memory');
  }
  return {
    gpa: header.gpa,
    data: contentOf(file, header, 'a segment'),
    memorySize: header.memorySize,
  };
}

/**
 * The notes of a segment. The gABI pads name and description to `p_align`, 4 or 8; but many linkers put
 * sections that are packed by 4 into a segment that says 8. Such a segment is read as it says only if
 * all of it makes sense that way, and else by 4.
 */
function readNotes(file: StructReader, header: ProgramHeader): ElfNote[] {
  const bytes = contentOf(file, header, 'a note segment');
  if (bytes.length > MAX_NOTE_BYTES) throw refuse(`has a note segment of ${bytes.length} bytes`);
  const reader = new StructReader(bytes, 'ELF note segment');
  const saysEight = header.alignment === 8n;
  const notes = (saysEight && unpackNotes(reader, 8)) || unpackNotes(reader, 4, saysEight);
  if (!notes) throw refuse('has a note that is longer than its segment');
  return notes;
}

/**
 * Undefined for bytes that are not notes packed like this. Packed by 8 also means: with names that are
 * text, and zeros between. `gaps`: sections of notes begin at multiples of 8, with zeros before them.
 */
function unpackNotes(reader: StructReader, packing: 4 | 8, gaps = false): ElfNote[] | undefined {
  const align = (value: number): number => (value + packing - 1) & -packing;
  const strict = packing === 8;
  const notes: ElfNote[] = [];
  let at = 0;
  while (at + NOTE_HEADER <= reader.length) {
    const nameSize = reader.u32(at);
    if (gaps && at % 8 === 4 && nameSize === 0) {
      at += 4;
      continue;
    }
    const descriptionSize = reader.u32(at + 4);
    if (nameSize > reader.length || descriptionSize > reader.length) return undefined;
    const nameEnd = at + NOTE_HEADER + nameSize;
    const descriptionAt = at + align(NOTE_HEADER + nameSize);
    const end = descriptionAt + descriptionSize;
    if (end > reader.length) return undefined;
    const name = Buffer.from(reader.slice(at + NOTE_HEADER, nameSize)).toString('latin1');
    const next = Math.min(descriptionAt + align(descriptionSize), reader.length);
    const isText = /^[ -~]+\0+$/.test(name);
    if (strict && !(isText && isZero(reader, nameEnd, descriptionAt) && isZero(reader, end, next)))
      return undefined;
    notes.push({
      name: name.slice(0, MAX_NOTE_NAME).replace(/\0.*$/s, ''),
      type: reader.u32(at + 8),
      description: reader.slice(descriptionAt, descriptionSize),
    });
    at = next;
  }
  return strict && !isZero(reader, at, reader.length) ? undefined : notes;
}

const isZero = (reader: StructReader, start: number, end: number): boolean =>
  reader.slice(start, end - start).every((byte) => byte === 0);

/** Whether `address` lies in what `image` loads. */
export const isLoaded = (image: ElfImage, address: bigint): boolean =>
  image.segments.some(({ gpa, memorySize }) => address >= gpa && address < gpa + memorySize);
