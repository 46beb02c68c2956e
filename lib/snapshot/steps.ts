/**
 * Work in steps: a generator that yields now and then, so that whoever drives it can let others have
 * the event loop, or end it, in between. What a store holds decides how long such work takes.
 */
export type Steps<T> = Generator<undefined, T, undefined>;

/** Loops yield once in so many rounds: some 100 µs of the cheapest ones. */
export const ROUNDS_PER_STEP = 4096;

/** All steps at once, for what is known to be small. */
export function finish<T>(steps: Steps<T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}
