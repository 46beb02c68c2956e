/**
 * The setup header of a bzImage (Linux Documentation/arch/x86/boot.rst, "The Real-Mode Kernel
 * Header"). Field offsets are those of the file, which are those of `boot_params` too.
 */
import { KvmsnapError } from '../../errors.js';
import { StructReader } from '../bytes.js';

const BOOT_FLAG = 0xaa55;
const HEADER_MAGIC = 0x53726448; // "HdrS"
/** The first version with `xloadflags`, which say whether there is a 64-bit entry. */
const MIN_VERSION = 0x020c;
const LOADED_HIGH = 1;
const XLF_KERNEL_64 = 1;
const SECTOR = 512;
const PARAGRAPH = 16;
const SETUP_HEADER = 0x1f1;
const ENTRY_64 = 0x200n;
const MIB = 0x100000n;

export interface BzImage {
  /** Bytes of the setup header as the file has them, from offset 0x1f1. */
  setupHeader: Uint8Array;
  /** The protected-mode kernel. */
  payload: Uint8Array;
  /** Where `payload` goes. */
  loadAddress: bigint;
  entry: bigint;
  /** RAM from `loadAddress` on that the kernel uses before it reads its memory map. */
  initSize: bigint;
  /** The highest address that the initrd's last byte may have. */
  initrdAddressMax: bigint;
  /** Most bytes of command line, without its NUL. */
  commandLineMax: number;
}

const refuse = (message: string): KvmsnapError =>
  new KvmsnapError('ERR_KERNEL_IMAGE', `bzImage: ${message}`);

export function isBzImage(image: Uint8Array): boolean {
  if (image.length < 0x206) return false;
  const file = new StructReader(image, 'bzImage');
  return file.u16(0x1fe) === BOOT_FLAG && file.u32(0x202) === HEADER_MAGIC;
}

/** Throws `ERR_KERNEL_IMAGE` unless `image` is whole and can be entered in 64-bit mode. */
export function parseBzImage(image: Uint8Array): BzImage {
  const file = new StructReader(image, 'bzImage');
  if (!isBzImage(image)) throw refuse('no boot flag 0xaa55 and "HdrS" magic in its setup header');
  const version = file.u16(0x206);
  if (version < MIN_VERSION) {
    throw refuse(
      `boot protocol ${version >> 8}.${version & 0xff} is too old; 2.12 (Linux 3.8) is needed`,
    );
  }
  if (!(file.u8(0x211) & LOADED_HIGH)) throw refuse('is a zImage, which loads below 1 MiB');
  if (!(file.u16(0x236) & XLF_KERNEL_64)) {
    throw refuse('has no 64-bit entry (XLF_KERNEL_64); build the kernel for x86-64');
  }
  // boot.rst: "if the setup_sects field contains 0, the real value is 4".
  const setupSectors = file.u8(0x1f1) || 4;
  const payloadAt = (setupSectors + 1) * SECTOR;
  if (payloadAt + Number(ENTRY_64) >= image.length) {
    throw refuse('ends before its 64-bit entry; the file is cut off');
  }
  // syssize counts paragraphs, and the last one need not be full.
  const paragraphs = file.u32(0x1f4);
  if (Math.ceil((image.length - payloadAt) / PARAGRAPH) < paragraphs) {
    throw refuse(
      `says that it has at least ${payloadAt + (paragraphs - 1) * PARAGRAPH + 1} bytes, and has ` +
        `${image.length}; the file is cut off`,
    );
  }
  // The header ends where the jump at 0x200 goes (its second byte counts from 0x202).
  const headerEnd = 0x202 + file.u8(0x201);
  if (headerEnd < 0x264 || headerEnd > 0x290) throw refuse(`its setup header ends at ${headerEnd}`);
  const loadAddress = placeKernel(file);
  return {
    setupHeader: file.slice(SETUP_HEADER, headerEnd - SETUP_HEADER),
    payload: image.subarray(payloadAt),
    loadAddress,
    entry: loadAddress + ENTRY_64,
    initSize: BigInt(file.u32(0x260)),
    initrdAddressMax: BigInt(file.u32(0x22c)),
    commandLineMax: file.u32(0x238),
  };
}

/**
 * `pref_address`: there a kernel unpacks in place. A relocatable one may lie elsewhere, but an x86-64
 * kernel never runs below it either, so lower RAM would not help.
 */
function placeKernel(file: StructReader): bigint {
  const preferred = file.u64(0x258);
  const alignment = BigInt(file.u32(0x230));
  if (alignment === 0n || (alignment & (alignment - 1n)) !== 0n) {
    throw refuse(`kernel_alignment ${alignment} is not a power of two`);
  }
  if (preferred < MIB) throw refuse('pref_address is below 1 MiB');
  if (file.u8(0x234) !== 0 && preferred % alignment !== 0n) {
    throw refuse('pref_address is not a multiple of kernel_alignment');
  }
  return preferred;
}
