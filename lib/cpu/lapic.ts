/**
 * Local APIC registers of KVM_GET_LAPIC and KVM_SET_LAPIC (`struct kvm_lapic_state`, one 1 KiB
 * register page). Offsets: Intel SDM volume 3, table 11-1 "Local APIC Register Address Map".
 */
import { array, at, type Decoded, type Patch, struct, u32 } from './struct.js';

/** Bytes, `KVM_APIC_REG_SIZE`. */
export const KVM_LAPIC_STATE_SIZE = 0x400;

/** 256 bits, 32 in each 16-byte step. */
const vectorBitmap = array(u32, 8, 16);

/** `struct kvm_lapic_state`. In x2APIC mode the bytes at `id` and `icr2` are x2APIC's. */
export const KVM_LAPIC_STATE = struct(
  'kvm_lapic_state',
  {
    /** xAPIC: id in bits 31..24. x2APIC (KVM_X2APIC_API_USE_32BIT_IDS): all 32 bits. */
    id: at(0x20, u32),
    version: at(0x30, u32),
    /** Task priority. */
    tpr: at(0x80, u32),
    /** Arbitration priority. */
    apr: at(0x90, u32),
    /** Processor priority. */
    ppr: at(0xa0, u32),
    /** Remote read. */
    rrd: at(0xc0, u32),
    /** Logical destination. */
    ldr: at(0xd0, u32),
    /** Destination format. */
    dfr: at(0xe0, u32),
    /** Spurious interrupt vector; bit 8 enables the APIC. */
    svr: at(0xf0, u32),
    /** In service. Vector v is bit v % 32 of word v / 32, as in `tmr` and `irr`. */
    isr: at(0x100, vectorBitmap),
    /** Trigger mode: 1 is level. */
    tmr: at(0x180, vectorBitmap),
    /** Requested: delivered to this APIC, not yet to the CPU. */
    irr: at(0x200, vectorBitmap),
    /** Error status. */
    esr: at(0x280, u32),
    lvt_cmci: at(0x2f0, u32),
    /** Interrupt command, bits 31..0. */
    icr: at(0x300, u32),
    /** Interrupt command, bits 63..32. */
    icr2: at(0x310, u32),
    lvt_timer: at(0x320, u32),
    lvt_thermal: at(0x330, u32),
    lvt_perf: at(0x340, u32),
    lvt_lint0: at(0x350, u32),
    lvt_lint1: at(0x360, u32),
    lvt_error: at(0x370, u32),
    timer_initial_count: at(0x380, u32),
    timer_current_count: at(0x390, u32),
    timer_divide: at(0x3e0, u32),
  },
  KVM_LAPIC_STATE_SIZE,
);
export interface Lapic extends Decoded<typeof KVM_LAPIC_STATE> {}

export const decodeLapic = (raw: Uint8Array): Lapic => KVM_LAPIC_STATE.decode(raw);
export const encodeLapic = (patch: Patch<Lapic>, base?: Uint8Array): Uint8Array =>
  KVM_LAPIC_STATE.encode(patch, base);

/** The vectors set in `isr`, `tmr` or `irr`, lowest first. */
export function lapicVectors(bitmap: readonly number[]): number[] {
  return bitmap.flatMap((word, i) =>
    Array.from({ length: 32 }, (_, bit) => bit)
      .filter((bit) => (word >>> bit) & 1)
      .map((bit) => i * 32 + bit),
  );
}
