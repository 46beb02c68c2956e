/** Many machines from one instant. */
import { requireArgument } from '../errors.js';
import { throwIfAborted } from './abort.js';
import type { IdentityOptions } from './identity.js';

export interface ForkOptions {
  /** How many; default 1. */
  count?: number;
  /**
   * What becomes of the others when one cannot be made. False (default): they are closed, and the call
   * fails. True: the result has an entry for each, as `Promise.allSettled` gives.
   */
  settle?: boolean;
  /** How each of them differs from the others. */
  identity?: IdentityOptions;
  /** Aborts between two machines, which are all closed then. `ERR_ABORTED`. */
  signal?: AbortSignal;
}

/** Far beyond what file descriptors and mappings allow. */
const MOST = 1_000_000;

export type Forks<Machine, Options> = Options extends { settle: true }
  ? PromiseSettledResult<Machine>[]
  : Machine[];

/** Calls `make` for each of them, one after the other. */
async function forkMany<Machine extends { close(): Promise<void> }>(
  options: ForkOptions,
  make: (identity?: IdentityOptions) => Promise<Machine>,
): Promise<PromiseSettledResult<Machine>[]> {
  const { count = 1, settle = false, identity, signal } = options;
  requireArgument(
    Number.isInteger(count) && count >= 0 && count <= MOST,
    `count must be an integer from 0 to ${MOST}`,
  );
  const results: PromiseSettledResult<Machine>[] = [];
  try {
    while (results.length < count) {
      throwIfAborted(signal);
      const [result] = await Promise.allSettled([make(identity)]);
      if (result.status === 'rejected' && !settle) throw result.reason;
      results.push(result);
    }
    throwIfAborted(signal);
    return results;
  } catch (error) {
    await Promise.all(
      results.map((result) => (result.status === 'fulfilled' ? result.value.close() : undefined)),
    );
    throw error;
  }
}

const countOf = (options: number | ForkOptions): ForkOptions =>
  typeof options === 'number' ? { count: options } : options;

/**
 * The same as its caller wants it: machines, or one result for each if it asked to `settle`. Without
 * options it is one machine.
 */
export async function forkAs<
  Machine extends { close(): Promise<void> },
  Options extends number | ForkOptions,
>(
  options: Options | undefined,
  make: (identity?: IdentityOptions) => Promise<Machine>,
): Promise<Forks<Machine, Options>> {
  const wanted = countOf(options ?? 1);
  const results = await forkMany(wanted, make);
  const forks = wanted.settle
    ? results
    : results.map((result) => (result as PromiseFulfilledResult<Machine>).value);
  return forks as Forks<Machine, Options>;
}
