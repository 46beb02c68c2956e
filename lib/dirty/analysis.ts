/** What many epochs together say. Pure functions: they keep nothing, and change no epoch. */
import { type DirtyEpoch, forEachPage } from './epoch.js';

/** Calls `visit` with the address of each page that was written, as a number of a page. */
function forEachFrame(epoch: DirtyEpoch, visit: (frame: number) => void): void {
  for (const slot of epoch.slots) {
    const base = Number(slot.gpa / 4096n);
    forEachPage(slot, (page) => visit(base + page));
  }
}

/**
 * The writable working set: how many different pages were written in each window of `window` epochs,
 * one number for each epoch from which a whole window has passed. Without `window`: in all of them.
 */
export function writableWorkingSet(
  epochs: readonly DirtyEpoch[],
  window = Math.max(epochs.length, 1),
): number[] {
  const inWindow = new Map<number, number>();
  const sizes: number[] = [];
  epochs.forEach((epoch, at) => {
    forEachFrame(epoch, (frame) => inWindow.set(frame, (inWindow.get(frame) ?? 0) + 1));
    const gone = epochs[at - window];
    if (gone) {
      forEachFrame(gone, (frame) => {
        const left = (inWindow.get(frame) as number) - 1;
        if (left === 0) inWindow.delete(frame);
        else inWindow.set(frame, left);
      });
    }
    if (at + 1 >= window) sizes.push(inWindow.size);
  });
  return sizes;
}

/**
 * Pages per second of each epoch. A page that was written many times counts once: the longer the
 * epochs, the lower the rate. The first epoch begins at `from` (milliseconds; the start of tracking).
 */
export function dirtyRate(epochs: readonly DirtyEpoch[], from = 0): number[] {
  let before = from;
  return epochs.map((epoch) => {
    const seconds = (epoch.at - before) / 1000;
    before = epoch.at;
    return seconds > 0 ? epoch.count / seconds : 0;
  });
}

/**
 * In how many epochs pages were written: `histogram[n]` pages were written in exactly n of them.
 * `histogram[0]` is 0: pages that nobody wrote are not counted.
 */
export function redirtyHistogram(epochs: readonly DirtyEpoch[]): number[] {
  const times = new Map<number, number>();
  for (const epoch of epochs) {
    forEachFrame(epoch, (frame) => times.set(frame, (times.get(frame) ?? 0) + 1));
  }
  const histogram = new Array<number>(epochs.length + 1).fill(0);
  for (const count of times.values()) (histogram[count] as number)++;
  return histogram;
}

/** A heat map: how many pages of each stretch of memory were written in each epoch. */
export interface HeatMap {
  /** Stretches of memory, by address; none spans two slots. */
  columns: { gpa: bigint; pages: number }[];
  /** Milliseconds since the start of tracking: one for each row. */
  at: number[];
  /** `rows[epoch][column]`: pages written. */
  rows: number[][];
}

/** Divides memory into about `columns` stretches of equal size. The epochs are of one machine. */
export function heatMap(epochs: readonly DirtyEpoch[], columns = 64): HeatMap {
  const slots = epochs[0]?.slots ?? [];
  const total = slots.reduce((sum, { size }) => sum + size, 0);
  const stretch = Math.max(1, Math.ceil(total / Math.max(1, columns)));
  const places = slots.flatMap(({ gpa, size }) =>
    Array.from({ length: Math.ceil(size / stretch) }, (_, i) => ({
      gpa: gpa + BigInt(i * stretch) * 4096n,
      pages: Math.min(stretch, size - i * stretch),
    })),
  );
  const rows = epochs.map((epoch) => {
    const row = new Array<number>(places.length).fill(0);
    let first = 0;
    for (const slot of epoch.slots) {
      forEachPage(slot, (page) => {
        (row[first + Math.floor(page / stretch)] as number)++;
      });
      first += Math.ceil(slot.size / stretch);
    }
    return row;
  });
  return { columns: places, at: epochs.map(({ at }) => at), rows };
}
