/** Entry state of the boot vCPU for each way into a Linux kernel. */
import { longControl, PVH_CONTROL, RFLAGS_RESET } from '../control.js';
import { LINUX_LAYOUT } from '../layout.js';
import type { EntryState } from '../plan.js';
import { encodeGdt, flatSegment, noLdt, tssSegment } from '../segments.js';

/** `__BOOT_CS` and `__BOOT_DS` (boot.rst, "64-bit Boot Protocol"). */
const BOOT_CS = 0x10;
const BOOT_DS = 0x18;
/** The least limit that a 32-bit TSS may have. */
const TSS_LIMIT = 0x67;

const code64 = flatSegment('code', 64, BOOT_CS, 0);
const data = flatSegment('data', 64, BOOT_DS, 0);

export const linuxGdt = (): Uint8Array => encodeGdt([code64, data], 64);

/** 64-bit boot protocol: paging on, RSI = `boot_params`, interrupts off. */
export function entry64(entry: bigint): EntryState {
  return {
    regs: {
      rip: entry,
      rsi: LINUX_LAYOUT.zeroPage,
      rsp: LINUX_LAYOUT.stackTop,
      rflags: RFLAGS_RESET,
    },
    sregs: {
      cs: code64,
      ds: data,
      es: data,
      fs: data,
      gs: data,
      ss: data,
      tr: tssSegment(0n, TSS_LIMIT, 0),
      ldt: noLdt(),
      gdt: { base: LINUX_LAYOUT.gdt, limit: linuxGdt().length - 1 },
      idt: { base: 0n, limit: 0 },
      ...longControl(LINUX_LAYOUT.pageTables, 0),
    },
  };
}

/** PVH: 32-bit protected mode, flat segments, no paging, EBX = `hvm_start_info`. */
export function entryPvh(entry: bigint): EntryState {
  const flat = flatSegment('data', 32, BOOT_DS, 0);
  return {
    regs: { rip: entry, rbx: LINUX_LAYOUT.pvh, rflags: RFLAGS_RESET },
    sregs: {
      cs: flatSegment('code', 32, BOOT_CS, 0),
      ds: flat,
      es: flat,
      fs: flat,
      gs: flat,
      ss: flat,
      tr: tssSegment(0n, TSS_LIMIT, 0),
      ldt: noLdt(),
      // The ABI leaves GDTR open: the kernel loads its own before it loads a segment register.
      gdt: { base: 0n, limit: 0 },
      idt: { base: 0n, limit: 0 },
      ...PVH_CONTROL,
    },
  };
}
