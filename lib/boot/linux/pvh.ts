/**
 * The PVH boot ABI (Xen docs/misc/pvh.pandoc, xen/include/public/arch-x86/hvm/start_info.h,
 * xen/include/public/elfnote.h).
 */
import { KvmsnapError } from '../../errors.js';
import { StructReader, StructWriter } from '../bytes.js';
import { type ElfImage, isLoaded } from '../elf.js';
import type { MemoryMapEntry } from './e820.js';

const XEN_ELFNOTE_PHYS32_ENTRY = 18;
const HVM_START_MAGIC = 0x336ec578;
const VERSION = 1;
const START_INFO = 56;
const MODULE = 32;
const MEMMAP_ENTRY = 24;

/** The 32-bit entry point that the PVH note names, or undefined without such a note. */
export function pvhEntry(image: ElfImage): bigint | undefined {
  const note = image.notes.find(
    ({ name, type }) => name === 'Xen' && type === XEN_ELFNOTE_PHYS32_ENTRY,
  );
  if (!note) return undefined;
  const description = new StructReader(note.description, 'PVH note');
  const entry = description.length >= 8 ? description.u64(0) : BigInt(description.u32(0));
  if (entry > 0xffffffffn || !isLoaded(image, entry)) {
    throw new KvmsnapError(
      'ERR_KERNEL_IMAGE',
      `vmlinux: its PVH entry 0x${entry.toString(16)} is not in what it loads; build it again`,
    );
  }
  return entry;
}

export interface StartInfo {
  commandLine: bigint;
  initrd?: { gpa: bigint; size: number };
  rsdp: bigint;
  memoryMap: readonly MemoryMapEntry[];
}

/** `hvm_start_info` version 1, then its module list and memory map, as they lie at `base`. */
export function encodeStartInfo(info: StartInfo, base: bigint): Uint8Array {
  const modules = START_INFO + 8;
  const memmap = modules + MODULE;
  const bytes = new StructWriter(memmap + info.memoryMap.length * MEMMAP_ENTRY);
  bytes
    .u32(0, HVM_START_MAGIC)
    .u32(4, VERSION)
    .u64(24, info.commandLine)
    .u64(32, info.rsdp)
    .u64(40, base + BigInt(memmap))
    .u32(48, info.memoryMap.length);
  if (info.initrd) {
    bytes
      .u32(12, 1)
      .u64(16, base + BigInt(modules))
      .u64(modules, info.initrd.gpa)
      .u64(modules + 8, BigInt(info.initrd.size));
  }
  info.memoryMap.forEach((entry, index) => {
    const at = memmap + index * MEMMAP_ENTRY;
    bytes
      .u64(at, entry.start)
      .u64(at + 8, entry.size)
      .u32(at + 16, entry.type);
  });
  return bytes.bytes;
}
