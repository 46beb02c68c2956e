import { requireArgument } from '../errors.js';
import { HOLE_END, HOLE_START, PAGE_SIZE } from '../units.js';

/** A run of guest RAM: [start, end). */
export interface RamRange {
  start: bigint;
  end: bigint;
}

/** 52 bits: the most that x86-64 page tables can name (Intel SDM volume 3, 4.1.4). */
const MAX_MEMORY = 2 ** 52 - (HOLE_END - HOLE_START);

/**
 * Guest RAM of a machine with `memory` bytes: [0, 3 GiB) and, for a larger machine, the rest from
 * 4 GiB on. Throws `ERR_INVALID_ARGUMENT` unless `memory` is a positive multiple of the page size.
 */
export function ramRanges(memory: number): RamRange[] {
  requireArgument(
    Number.isSafeInteger(memory) && memory > 0 && memory % PAGE_SIZE === 0 && memory <= MAX_MEMORY,
    `memory must be a positive multiple of ${PAGE_SIZE} bytes, not ${memory}`,
  );
  const ranges = [{ start: 0n, end: BigInt(Math.min(memory, HOLE_START)) }];
  if (memory > HOLE_START) {
    ranges.push({ start: BigInt(HOLE_END), end: BigInt(HOLE_END + (memory - HOLE_START)) });
  }
  return ranges;
}

/** Whether [start, end) lies wholly inside one range. */
export function inRam(ram: readonly RamRange[], start: bigint, end: bigint): boolean {
  return ram.some((range) => start >= range.start && start < end && end <= range.end);
}
