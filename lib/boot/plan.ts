import type { PicChip } from '../cpu/irqchip.js';
import type { Lapic } from '../cpu/lapic.js';
import type { MsrEntry } from '../cpu/msrs.js';
import type { Regs, Sregs } from '../cpu/registers.js';
import type { Patch } from '../cpu/struct.js';
import { type ErrorCode, KvmsnapError } from '../errors.js';
import { inRam, type RamRange, ramRanges } from './ram.js';

/** State of the vCPU that boots, by the kernel's field names; fields left out keep KVM's reset value. */
export interface EntryState {
  regs: Partial<Regs>;
  sregs: Partial<Sregs>;
}

/**
 * How firmware leaves what it sets up on the way, where a guest expects firmware to have run. Fields left
 * out keep KVM's reset value.
 */
export interface FirmwareState {
  /** Of every vCPU. */
  msrs: readonly MsrEntry[];
  /** Of the boot vCPU. */
  lapic: Patch<Lapic>;
  /** Both PICs, by `chip_id`. */
  pics: readonly Patch<PicChip>[];
}

/** What to put into fresh (all-zero) guest memory, and where the boot vCPU starts. */
export interface BootPlan {
  /** Inside RAM, not overlapping. `data` may be a view of the caller's image: do not change it. */
  writes: { gpa: bigint; data: Uint8Array }[];
  entry: EntryState;
  /** None: the guest finds the machine as after a reset. */
  firmware?: FirmwareState;
}

interface Claim {
  name: string;
  start: bigint;
  end: bigint;
}

const hex = (value: bigint): string => `0x${value.toString(16)}`;
export const hexRange = (start: bigint, end: bigint): string => `[${hex(start)}, ${hex(end)})`;

/**
 * Collects writes. Each claims its range first, so that nothing lies outside RAM and nothing
 * overlaps, whatever an image asks for.
 */
export class PlanBuilder {
  readonly ram: readonly RamRange[];
  readonly #writes: BootPlan['writes'] = [];
  readonly #claims: Claim[] = [];

  constructor(memory: number) {
    this.ram = ramRanges(memory);
  }

  /** Takes `length` bytes at `gpa`; throws `code` if they are not all RAM or are taken already. */
  claim(name: string, gpa: bigint, length: bigint, code: ErrorCode = 'ERR_INVALID_ARGUMENT'): void {
    if (length === 0n) return;
    const end = gpa + length;
    if (!inRam(this.ram, gpa, end)) {
      const all = this.ram.map((range) => hexRange(range.start, range.end)).join(' and ');
      throw new KvmsnapError(
        code,
        `${name} at ${hexRange(gpa, end)} is not inside guest RAM, which is ${all}; give the ` +
          'machine more memory or load it elsewhere',
      );
    }
    const other = this.#claims.find((claim) => gpa < claim.end && claim.start < end);
    if (other) {
      throw new KvmsnapError(
        code,
        `${name} at ${hexRange(gpa, end)} overlaps ${other.name} at ` +
          `${hexRange(other.start, other.end)}; load it elsewhere`,
      );
    }
    this.#claims.push({ name, start: gpa, end });
  }

  /** Claims the range of `data` and writes it. */
  write(name: string, gpa: bigint, data: Uint8Array, code?: ErrorCode): void {
    this.claim(name, gpa, BigInt(data.length), code);
    this.fill(gpa, data);
  }

  /** Writes into a range that was claimed before. */
  fill(gpa: bigint, data: Uint8Array): void {
    if (data.length > 0) this.#writes.push({ gpa, data });
  }

  finish(entry: EntryState, firmware?: FirmwareState): BootPlan {
    return { writes: this.#writes, entry, ...(firmware && { firmware }) };
  }
}
