/** Many machines from one instant. */
import { requireFlag, requireOptions, requireSignal } from '../arguments.js';
import { requireArgument } from '../errors.js';
import { throwIfAborted } from './abort.js';
import { type GenerationIdPlace, type IdentityOptions, identityOf } from './identity.js';

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

/** Options that were checked. */
export interface ForkPlan {
  count: number;
  settle: boolean;
  identity?: IdentityOptions;
  signal?: AbortSignal;
}

/** Before anything is done for it. `place`: of the machines that are made. `ERR_INVALID_ARGUMENT`. */
export function planFork(
  options: number | ForkOptions | undefined,
  place: GenerationIdPlace | undefined,
): ForkPlan {
  const given = typeof options === 'number' ? { count: options } : options;
  requireOptions(given);
  const { count = 1, settle = false, identity, signal } = given ?? {};
  requireArgument(
    Number.isInteger(count) && count >= 0 && count <= MOST,
    `count must be an integer from 0 to ${MOST}`,
  );
  requireFlag(settle, 'settle');
  requireSignal(signal);
  identityOf(identity, 'new', place);
  return { count, settle, ...(identity ? { identity } : {}), ...(signal ? { signal } : {}) };
}

/**
 * Calls `make` for each of them, one after the other. Gives what its caller wants: machines, or one result
 * for each if it asked to `settle`.
 */
export async function forkAs<
  Machine extends { close(): Promise<void> },
  Options extends number | ForkOptions,
>(
  { count, settle, identity, signal }: ForkPlan,
  make: (identity?: IdentityOptions) => Promise<Machine>,
): Promise<Forks<Machine, Options>> {
  const results: PromiseSettledResult<Machine>[] = [];
  try {
    while (results.length < count) {
      throwIfAborted(signal);
      const [result] = await Promise.allSettled([make(identity)]);
      if (result.status === 'rejected' && !settle) throw result.reason;
      results.push(result);
    }
    throwIfAborted(signal);
  } catch (error) {
    await Promise.all(
      results.map((result) => (result.status === 'fulfilled' ? result.value.close() : undefined)),
    );
    throw error;
  }
  const forks = settle
    ? results
    : results.map((result) => (result as PromiseFulfilledResult<Machine>).value);
  return forks as Forks<Machine, Options>;
}
