/** What one harvest of a dirty tracker gave. */
import type { NativeDirtySlot, PageRun } from '../native/binding.js';

/** The six ways to find out which pages a guest writes. docs/dirty-tracking.md compares them. */
export const TRACKERS = ['bitmap', 'bitmap-manual', 'ring', 'uffd-wp', 'pagemap', 'cow'] as const;
export type TrackerName = (typeof TRACKERS)[number];

export type { PageRun };

/** Which pages of a slot were written. */
export interface DirtySlot {
  slot: number;
  /** First guest physical address. */
  gpa: bigint;
  /** Size of the slot in pages. */
  size: number;
  /** How many of them were written. */
  count: number;
  /** Bit n % 8 of byte n / 8 is page n of the slot. */
  bitmap: Uint8Array;
}

export interface EpochFacts {
  /** Milliseconds since tracking started. */
  at: number;
  /** What the harvest took, in microseconds. */
  harvestUs: number;
  /**
   * Guest time that went into tracking since the epoch before, in microseconds, where it can be
   * known: pauses for harvests, full rings, faults that user space served. What write faults cost
   * inside the kernel is not in it.
   */
  lostUs: number;
}

/** The pages that were written from one harvest to the next: by the guest, or by the VMM. */
export class DirtyEpoch implements EpochFacts {
  readonly at: number;
  readonly harvestUs: number;
  readonly lostUs: number;
  /** By address. */
  readonly slots: readonly DirtySlot[];
  #pages: PageRun[] | undefined;

  constructor(facts: EpochFacts, slots: readonly DirtySlot[]) {
    this.at = facts.at;
    this.harvestUs = facts.harvestUs;
    this.lostUs = facts.lostUs;
    this.slots = slots;
  }

  /** How many pages were written. */
  get count(): number {
    return this.slots.reduce((sum, { count }) => sum + count, 0);
  }

  get bytes(): number {
    return this.count * 4096;
  }

  /** The same pages as runs, by address. */
  get pages(): readonly PageRun[] {
    this.#pages ??= this.slots.flatMap((slot) => runsOf(slot));
    return this.#pages;
  }
}

/** @internal */
export function epochOf(facts: EpochFacts, slots: readonly NativeDirtySlot[]): DirtyEpoch {
  return new DirtyEpoch(
    facts,
    slots.map(({ slot, gpa, pages, count, bitmap }) => ({
      slot,
      gpa,
      size: pages,
      count,
      bitmap,
    })),
  );
}

/** Calls `visit` with the number in its slot of each page that was written, in order. */
export function forEachPage({ bitmap }: DirtySlot, visit: (page: number) => void): void {
  for (let at = 0; at < bitmap.length; at++) {
    const byte = bitmap[at] as number;
    if (byte === 0) continue;
    for (let bit = 0; bit < 8; bit++) if (byte & (1 << bit)) visit(at * 8 + bit);
  }
}

function runsOf(slot: DirtySlot): PageRun[] {
  const runs: PageRun[] = [];
  let first = 0;
  let end = -1;
  const close = (): void => {
    if (end > first) runs.push({ gpa: slot.gpa + BigInt(first) * 4096n, count: end - first });
  };
  forEachPage(slot, (page) => {
    if (page !== end) {
      close();
      first = page;
    }
    end = page + 1;
  });
  close();
  return runs;
}
