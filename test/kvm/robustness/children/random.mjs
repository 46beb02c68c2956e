// Numbers that follow from a seed.

/** Gives numbers from 0 on, below 1 (mulberry32). */
export function randomOf(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** The choices of one step. They depend on no other step, nor on how long anything took. */
export class Choices {
  #next;

  constructor(seed, step) {
    this.#next = randomOf(Math.imul(seed, 0x9e3779b1) ^ Math.imul(step + 1, 0x85ebca6b));
  }

  /** An integer from 0 on, below `limit`. */
  below(limit) {
    return Math.floor(this.#next() * limit);
  }

  /** True once in `times`. */
  once(times) {
    return this.below(times) === 0;
  }

  of(list) {
    return list[this.below(list.length)];
  }

  /** One of `[weight, value]`. */
  weighted(list) {
    let at = this.below(list.reduce((sum, [weight]) => sum + weight, 0));
    for (const [weight, value] of list) {
      at -= weight;
      if (at < 0) return value;
    }
    throw new Error('weights sum up to more than they are');
  }
}
