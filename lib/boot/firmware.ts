/**
 * What firmware leaves in the first MiB for an operating system that wants to be reset: a reset vector,
 * and the BIOS data area's reset flag.
 */
import { concat, StructWriter } from './bytes.js';
import { LOW_MEMORY } from './layout.js';
import type { PlanBuilder } from './plan.js';

/** The i8042's command port, and its command that pulses the reset line. */
const I8042_COMMAND = 0x64;
const PULSE_RESET = 0xfe;
/** Reset control register of PIIX and ICH chipsets (82371AB datasheet, 4.1.4). */
export const RESET_CONTROL_PORT = 0xcf9;
/** Bit 1: a hard reset. Bit 2: now. */
export const RESET_CONTROL_VALUE = 0x06;

/** Neither 0, a cold boot, nor 0x1234, a warm one: the guest has not said how it wants to be reset. */
const RESET_FLAG_UNTOUCHED = 0xffff;
/** Says that the flag was left like that. As in native/vmm/reset_request.cc. */
const MARK = 'KVMSNAP1';

/** A real-mode segment that ends at 1 MiB. */
const ROM_SEGMENT_BASE = 0xf0000n;
const inSegment = (address: bigint): number => Number(address - ROM_SEGMENT_BASE);

/**
 * Code for real mode at `LOW_MEMORY.resetCode`, by CS 0xF000: asks i8042 and chipset for a reset, and if the
 * machine has neither, shuts the CPU down, which a PC takes for a reset: `ud2` without an IDT.
 */
function resetCode(): Uint8Array {
  const noIdt = 32;
  const code = Uint8Array.of(
    ...[0xfa], // cli
    ...[0xb0, PULSE_RESET], // mov al, PULSE_RESET
    ...[0xe6, I8042_COMMAND], // out I8042_COMMAND, al
    ...[0xba, RESET_CONTROL_PORT & 0xff, RESET_CONTROL_PORT >> 8], // mov dx, RESET_CONTROL_PORT
    ...[0xb0, RESET_CONTROL_VALUE], // mov al, RESET_CONTROL_VALUE
    ...[0xee], // out dx, al
    ...[0x31, 0xc0], // xor ax, ax
    ...[0x8e, 0xd8], // mov ds, ax
    ...[0xa3, ...word(Number(LOW_MEMORY.resetFlag))], // mov [resetFlag], ax
    ...[0x2e, 0x0f, 0x01, 0x1e], // lidt cs:[noIdt]
    ...word(inSegment(LOW_MEMORY.resetCode) + noIdt),
    ...[0x0f, 0x0b], // ud2
    ...[0xf4], // hlt
  );
  return concat([code, new Uint8Array(noIdt + 6 - code.length)]);
}

/** `jmp far 0xf000:resetCode`. */
const resetVector = (): Uint8Array =>
  Uint8Array.of(
    0xea,
    ...word(inSegment(LOW_MEMORY.resetCode)),
    ...word(Number(ROM_SEGMENT_BASE >> 4n)),
  );

const word = (value: number): number[] => [value & 0xff, value >> 8];

/** Whether {@link placeFirmware} has prepared that memory. What `read` throws comes through. */
export const isBootedByFirmware = (read: (gpa: bigint, length: number) => Uint8Array): boolean =>
  Buffer.from(read(LOW_MEMORY.resetMark, MARK.length)).toString('latin1') === MARK;

/** Takes [0, 0x500), and the 128 bytes below 1 MiB. */
export function placeFirmware(plan: PlanBuilder): void {
  const { resetFlag, resetMark, resetCode: code, resetVector: vector, end } = LOW_MEMORY;
  plan.claim('the BIOS data area', 0n, LOW_MEMORY.biosDataEnd);
  plan.fill(resetFlag, new StructWriter(2).u16(0, RESET_FLAG_UNTOUCHED).bytes);
  plan.fill(resetMark, new StructWriter(MARK.length).ascii(0, MARK).bytes);
  plan.claim('the reset vector', code, end - code);
  plan.fill(code, resetCode());
  plan.fill(vector, resetVector());
}
