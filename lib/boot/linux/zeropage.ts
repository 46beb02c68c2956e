/**
 * `struct boot_params`, "the zero page" (Linux Documentation/arch/x86/zero-page.rst and
 * arch/x86/include/uapi/asm/bootparam.h), with the setup header in it.
 */
import { StructWriter } from '../bytes.js';
import type { MemoryMapEntry } from './e820.js';

const SIZE = 4096;
const SETUP_HEADER = 0x1f1;
const E820_TABLE = 0x2d0;
const E820_ENTRY = 20;
/** "Undefined": a boot loader without an assigned number. */
const LOADER_TYPE = 0xff;
const VGA_NORMAL = 0xffff;
/** Of a kernel that comes without a setup header: the version whose fields we fill. */
const VERSION = 0x020f;

export interface ZeroPage {
  /** From the bzImage; an ELF kernel has none. */
  setupHeader?: Uint8Array;
  memoryMap: readonly MemoryMapEntry[];
  commandLine: bigint;
  initrd?: { gpa: bigint; size: number };
  rsdp: bigint;
  /** First of the setup_data list; 0: none. */
  setupData: bigint;
}

export function encodeZeroPage(page: ZeroPage): Uint8Array {
  const bytes = new StructWriter(SIZE);
  if (page.setupHeader) {
    bytes.raw(SETUP_HEADER, page.setupHeader);
  } else {
    bytes.u16(0x1fe, 0xaa55).ascii(0x202, 'HdrS').u16(0x206, VERSION);
    // LOADED_HIGH: the kernel expects to lie above 1 MiB.
    bytes.u8(0x211, 1);
  }
  bytes
    .u64(0x70, page.rsdp)
    .u16(0x1fa, VGA_NORMAL)
    .u8(0x210, LOADER_TYPE)
    .u32(0x228, Number(page.commandLine))
    .u64(0x250, page.setupData)
    .u8(0x1e8, page.memoryMap.length);
  if (page.initrd) {
    // Always below 4 GiB here, so ext_ramdisk_image and ext_ramdisk_size stay 0.
    bytes.u32(0x218, Number(page.initrd.gpa)).u32(0x21c, page.initrd.size);
  }
  page.memoryMap.forEach((entry, index) => {
    const at = E820_TABLE + index * E820_ENTRY;
    bytes
      .u64(at, entry.start)
      .u64(at + 8, entry.size)
      .u32(at + 16, entry.type);
  });
  return bytes.bytes;
}

/** One node of the `setup_data` list (boot.rst, "setup_data"). */
export interface SetupData {
  /** `SETUP_*` of arch/x86/include/uapi/asm/setup_data.h; 9 is an RNG seed. */
  type: number;
  data: Uint8Array;
}

/** Lays the nodes out as a list from `base` on, each 16-byte aligned. */
export function encodeSetupData(nodes: readonly SetupData[], base: bigint): Uint8Array {
  const header = 16;
  const align = (value: number): number => (value + 15) & ~15;
  const bytes = new StructWriter(
    nodes.reduce((sum, node) => sum + align(header + node.data.length), 0),
  );
  let at = 0;
  nodes.forEach((node, index) => {
    const next = at + align(header + node.data.length);
    bytes
      .u64(at, index + 1 < nodes.length ? base + BigInt(next) : 0n)
      .u32(at + 8, node.type)
      .u32(at + 12, node.data.length)
      .raw(at + header, node.data);
    at = next;
  });
  return bytes.bytes;
}
