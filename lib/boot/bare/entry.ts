/** Entry state of the boot vCPU of a bare guest, for each mode. */
import { longControl, PROTECTED_CONTROL, REAL_CONTROL, RFLAGS_RESET } from '../control.js';
import { BARE_LAYOUT } from '../layout.js';
import type { EntryState } from '../plan.js';
import { encodeGdt, flatSegment, noLdt, realSegment, tssSegment } from '../segments.js';
import { TSS_LIMIT } from './tss.js';

/**
 * Selectors, in the order that `syscall` and `sysret` want: STAR = 0x10 << 48 | 0x08 << 32 fits
 * (Intel SDM volume 3, 6.8.8).
 */
export const BARE_SELECTORS = {
  code0: 0x08,
  data0: 0x10,
  data3: 0x18 | 3,
  code3: 0x20 | 3,
  tss: 0x28,
} as const;

const IDT_BYTES = { 32: 256 * 8, 64: 256 * 16 } as const;
const REAL_IVT_LIMIT = 0x3ff;

export interface BareEntry {
  entry: bigint;
  stack: bigint;
  /** For RDI: bytes of guest RAM. */
  memory: number;
}

function segmentsFor(bits: 32 | 64) {
  return {
    code0: flatSegment('code', bits, BARE_SELECTORS.code0, 0),
    data0: flatSegment('data', bits, BARE_SELECTORS.data0, 0),
    data3: flatSegment('data', bits, BARE_SELECTORS.data3, 3),
    code3: flatSegment('code', bits, BARE_SELECTORS.code3, 3),
    tss: tssSegment(BARE_LAYOUT.tss, TSS_LIMIT, BARE_SELECTORS.tss),
  };
}

export const bareGdt = (bits: 32 | 64): Uint8Array =>
  encodeGdt(Object.values(segmentsFor(bits)), bits);

/** RFLAGS bits 13:12, IOPL. */
const IOPL_3 = 3n << 12n;

/**
 * Protected (`bits` 32, no paging) or long mode (64). Interrupts off. IOPL is 0 but for a guest in
 * ring 3 that may use `allPorts`: the bitmap of the TSS says the same, but software emulators (QEMU
 * 7.2, `check_io`) do not look at that of a TSS that is busy, as KVM has it.
 */
export function entryFlat(
  bits: 32 | 64,
  ring: 0 | 3,
  allPorts: boolean,
  at: BareEntry,
): EntryState {
  const segments = segmentsFor(bits);
  const code = ring === 3 ? segments.code3 : segments.code0;
  const data = ring === 3 ? segments.data3 : segments.data0;
  const rflags = ring === 3 && allPorts ? RFLAGS_RESET | IOPL_3 : RFLAGS_RESET;
  return {
    regs: { rip: at.entry, rsp: at.stack, rdi: BigInt(at.memory), rflags },
    sregs: {
      cs: code,
      ds: data,
      es: data,
      fs: data,
      gs: data,
      ss: data,
      tr: segments.tss,
      ldt: noLdt(),
      gdt: { base: BARE_LAYOUT.gdt, limit: bareGdt(bits).length - 1 },
      idt: { base: BARE_LAYOUT.idt, limit: IDT_BYTES[bits] - 1 },
      ...(bits === 64 ? longControl(BARE_LAYOUT.pageTables, ring) : PROTECTED_CONTROL),
    },
  };
}

/** The selector of the 64 KiB block that holds `address`, and the offset in it. */
const split = (address: bigint): { selector: number; offset: bigint } => ({
  selector: Number((address >> 4n) & 0xf000n),
  offset: address & 0xffffn,
});

/** Real mode: DS, ES, FS and GS equal CS. Interrupt vectors at 0, all zero. */
export function entryReal(at: BareEntry): EntryState {
  const code = split(at.entry);
  // The byte under the stack pointer names the segment: a stack that ends at 64 KiB has SP = 0.
  const stack = split(at.stack - 1n);
  const data = realSegment('data', code.selector);
  return {
    regs: {
      rip: code.offset,
      rsp: (stack.offset + 1n) & 0xffffn,
      rdi: BigInt(at.memory),
      rflags: RFLAGS_RESET,
    },
    sregs: {
      cs: realSegment('code', code.selector),
      ds: data,
      es: data,
      fs: data,
      gs: data,
      ss: realSegment('data', stack.selector),
      tr: tssSegment(0n, 0xffff, 0),
      ldt: noLdt(),
      gdt: { base: 0n, limit: 0 },
      idt: { base: 0n, limit: REAL_IVT_LIMIT },
      ...REAL_CONTROL,
    },
  };
}
