import { IOAPIC_BASE, LAPIC_BASE, LOW_MEMORY } from '../layout.js';
import type { RamRange } from '../ram.js';

/** Address range types (ACPI specification 6.5, table 15.3); e820 and PVH share them. */
export const E820_RAM = 1;
export const E820_RESERVED = 2;

export interface MemoryMapEntry {
  start: bigint;
  size: bigint;
  type: number;
}

const PAGE = 0x1000n;

/**
 * What the guest is told of its memory: RAM below the EBDA, EBDA, the hole with the ACPI tables in
 * it, RAM below the 32-bit hole, interrupt controllers, RAM from 4 GiB on. Sorted.
 */
export function memoryMap(ram: readonly RamRange[]): MemoryMapEntry[] {
  const entry = (start: bigint, end: bigint, type: number): MemoryMapEntry => ({
    start,
    size: end - start,
    type,
  });
  const [low, ...high] = ram as [RamRange, ...RamRange[]];
  return [
    entry(0n, LOW_MEMORY.ebda, E820_RAM),
    entry(LOW_MEMORY.ebda, LOW_MEMORY.hole, E820_RESERVED),
    entry(LOW_MEMORY.hole, LOW_MEMORY.end, E820_RESERVED),
    entry(LOW_MEMORY.end, low.end, E820_RAM),
    entry(IOAPIC_BASE, IOAPIC_BASE + PAGE, E820_RESERVED),
    entry(LAPIC_BASE, LAPIC_BASE + PAGE, E820_RESERVED),
    ...high.map((range) => entry(range.start, range.end, E820_RAM)),
  ].filter((each) => each.size > 0n);
}
