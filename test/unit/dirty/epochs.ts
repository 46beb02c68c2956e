/** Epochs made by hand. */
import { DirtyEpoch } from '../../../lib/index.js';

export interface Made {
  slot?: number;
  gpa?: bigint;
  size?: number;
  pages: readonly number[];
}

export const epoch = (at: number, ...slots: Made[]): DirtyEpoch =>
  new DirtyEpoch(
    { at, harvestUs: 1, lostUs: 2 },
    slots.map(({ slot = 0, gpa = 0n, size = 100, pages }) => {
      const bitmap = new Uint8Array(Math.ceil(size / 64) * 8);
      for (const page of pages)
        bitmap[page >> 3] = (bitmap[page >> 3] as number) | (1 << (page & 7));
      return { slot, gpa, size, count: new Set(pages).size, bitmap };
    }),
  );
