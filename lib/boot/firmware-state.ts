/**
 * How firmware leaves processors and interrupt controllers, for operating systems that do not set up
 * themselves what they find set up: memory types, and who takes the PIC's interrupt and the NMI.
 */
import { KVM_IRQCHIP } from '../cpu/irqchip.js';
import { MSR, type MsrEntry } from '../cpu/msrs.js';
import { HOLE_END, HOLE_START } from '../units.js';
import type { FirmwareState } from './plan.js';

/** Memory types (Intel SDM volume 3, table 12-2), of eight ranges in the byte order of a fixed MTRR. */
const UNCACHEABLE = 0n;
const WRITE_BACK = 6n;
const everywhere = (type: bigint): bigint => type * 0x0101010101010101n;

/** IA32_MTRR_DEF_TYPE: MTRRs enabled (bit 11), fixed ones too (bit 10), and what they leave open. */
const MTRR_ENABLED = (1n << 11n) | (1n << 10n) | WRITE_BACK;
/** IA32_MTRR_PHYSMASKn: the range is valid. */
const MTRR_VALID = 1n << 11n;

/** Fixed ranges below 1 MiB: memory, video memory and what is above it. */
const FIXED: readonly (readonly [name: string, type: bigint])[] = [
  ['MTRR_FIX_64K_00000', WRITE_BACK],
  ['MTRR_FIX_16K_80000', WRITE_BACK],
  ['MTRR_FIX_16K_A0000', UNCACHEABLE],
  // The ACPI tables and the reset vector lie here, in RAM.
  ...['C0000', 'C8000', 'D0000', 'D8000', 'E0000', 'E8000', 'F0000', 'F8000'].map(
    (start) => [`MTRR_FIX_4K_${start}`, WRITE_BACK] as const,
  ),
];

/** All memory is write-back, but for video memory and the 32-bit hole, where devices are. */
function memoryTypes(physicalAddressBits: number): MsrEntry[] {
  const hole = BigInt(HOLE_END - HOLE_START);
  const mask = ((1n << BigInt(physicalAddressBits)) - 1n) & ~(hole - 1n);
  const msr = (name: string, data: bigint): MsrEntry => ({ index: MSR[name]!, data });
  return [
    ...FIXED.map(([name, type]) => msr(name, everywhere(type))),
    msr('IA32_MTRR_PHYSBASE0', BigInt(HOLE_START) | UNCACHEABLE),
    msr('IA32_MTRR_PHYSMASK0', mask | MTRR_VALID),
    // Last: it enables them.
    msr('IA32_MTRR_DEF_TYPE', MTRR_ENABLED),
  ];
}

/** Local vector table (Intel SDM volume 3, 11.5.1): delivery modes. */
const NMI = 4 << 8;
const EXT_INT = 7 << 8;
/** Spurious interrupt vector register: the vector, and the APIC enabled in software. */
const SPURIOUS = 0x1ff;

/** "Virtual wire mode": the boot processor takes the PIC's interrupts. Others have theirs masked, as by INIT. */
const VIRTUAL_WIRE = { svr: SPURIOUS, lvt_lint0: EXT_INT, lvt_lint1: NMI };

/**
 * Initialised and with all lines masked. `elcr_mask` is KVM's own: which lines may be level-triggered
 * (arch/x86/kvm/i8259.c, kvm_pic_init).
 */
const pic = (chip_id: number, irq_base: number, elcr_mask: number) => ({
  chip_id,
  pic: { irq_base, imr: 0xff, init4: 1, elcr_mask },
});

export const firmwareState = (physicalAddressBits: number): FirmwareState => ({
  msrs: memoryTypes(physicalAddressBits),
  lapic: VIRTUAL_WIRE,
  // The vectors that PC firmware uses: INT 8 to 15, and INT 70h to 77h.
  pics: [pic(KVM_IRQCHIP.PIC_SLAVE, 0x70, 0xde), pic(KVM_IRQCHIP.PIC_MASTER, 0x08, 0xf8)],
});
