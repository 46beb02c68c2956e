/**
 * Many extents as numbers in one array: a chain has tens of thousands, and objects with a `bigint` in
 * each take longer than all else of a restore. Guest addresses are below 2^52, so numbers are exact.
 */
import type { NativeExtent } from '../native/binding.js';

const STRIDE = 4;

/** `NativeExtent`s, in the order in which they were added. */
export class Extents implements Iterable<NativeExtent> {
  #rows: Float64Array;
  #length = 0;

  /** `most`: how many there will be at most. */
  constructor(most: number) {
    this.#rows = new Float64Array(most * STRIDE);
  }

  get length(): number {
    return this.#length;
  }

  /** Gpa, length, offset and file of each in turn, as the addon takes them. */
  get rows(): Float64Array {
    return this.#rows.subarray(0, this.#length * STRIDE);
  }

  add(gpa: number, length: number, offset: number, file: number): void {
    const at = this.#length++ * STRIDE;
    this.#rows[at] = gpa;
    this.#rows[at + 1] = length;
    this.#rows[at + 2] = offset;
    this.#rows[at + 3] = file;
  }

  /** The last one goes on for `bytes`. */
  prolong(bytes: number): void {
    (this.#rows[(this.#length - 1) * STRIDE + 1] as number) += bytes;
  }

  gpa(i: number): number {
    return this.#rows[i * STRIDE] as number;
  }

  size(i: number): number {
    return this.#rows[i * STRIDE + 1] as number;
  }

  offset(i: number): number {
    return this.#rows[i * STRIDE + 2] as number;
  }

  file(i: number): number {
    return this.#rows[i * STRIDE + 3] as number;
  }

  end(i: number): number {
    return this.gpa(i) + this.size(i);
  }

  *[Symbol.iterator](): Generator<NativeExtent> {
    for (let i = 0; i < this.#length; i++) {
      yield {
        file: this.file(i),
        gpa: BigInt(this.gpa(i)),
        length: this.size(i),
        offset: this.offset(i),
      };
    }
  }
}
