/** Memory that comes on demand: options, and the answers of a JavaScript source. docs/on-demand.md. */
import { KvmsnapError, requireArgument, textOf } from '../errors.js';
import type { NativeMachine, NativePaging, NativeStop, PageRun } from '../native/binding.js';
import type { LoadedSnapshot } from '../snapshot/load.js';
import { requireWorkingSet } from '../snapshot/working-set.js';
import { KiB, MiB, PAGE_SIZE } from '../units.js';

/** Pages in the order in which they were first touched. */
export type WorkingSet = readonly PageRun[];

/** Where the pages of a machine come from. */
export interface PageSource {
  /**
   * Gives `length` bytes of the snapshot's memory at `gpa`, whole pages. Several calls may be open at
   * once, answered in any order; none asks for a page twice. `signal` fires when the answer is no
   * longer wanted. What it throws, or any other length, ends the machine with `ERR_PAGE_SOURCE`.
   */
  read(gpa: bigint, length: number, signal: AbortSignal): Uint8Array | Promise<Uint8Array>;
}

export interface PagingOptions {
  /** `file` (default): the snapshot's files in the store. */
  source?: 'file' | PageSource;
  /** Fetches these pages first, while the machine may run; true: the working set in the snapshot. */
  prefetch?: boolean | WorkingSet;
  /**
   * Brings in one page for each fault, so that {@link Vm.workingSet} has exactly the pages that were
   * touched. Slower. Not with `prefetch`, whose pages nobody can see being touched. Default false.
   */
  record?: boolean;
  /** Bytes brought in for one fault: a power of two from 4 KiB to 2 MiB. Default 64 KiB. */
  faultBytes?: number;
  /** Milliseconds that a JavaScript source may take for an answer; default: any time. */
  timeout?: number;
  /**
   * Called when the source has failed and the machine is poisoned; {@link Vm.wait} tells it, too. No call
   * waits for it: what it throws or rejects with becomes a warning of the process.
   */
  onError?: (error: KvmsnapError) => unknown;
}

/** What became of memory that comes on demand. */
export interface PagingFacts {
  /** Pages still come on demand; false once all are there, or when paging has failed. */
  active: boolean;
  /** Touches that had to wait. */
  faults: number;
  /** Pages with content brought in by faults, by the prefetch, by `pageIn` and reads of the host. */
  faultedPages: number;
  prefetchedPages: number;
  fetchedPages: number;
  /** Pages with content that are not there yet. */
  pagesLeft: number;
  /** Bytes brought in. */
  bytes: number;
  /** How long faults waited, in microseconds, an eighth too much at most; 0 without any. */
  latencyUs: { p50: number; p99: number };
}

/** Options that were checked. */
export interface PagingPlan {
  native: NativePaging;
  source?: PageSource;
  timeout?: number;
  onError?: (error: KvmsnapError) => unknown;
}

const DEFAULT_FAULT_BYTES = KiB(64);
const MOST_FAULT_BYTES = MiB(2);

/** `ERR_INVALID_ARGUMENT`. */
export function planPaging(
  options: PagingOptions,
  { workingSet, regions }: Pick<LoadedSnapshot, 'workingSet' | 'regions'>,
): PagingPlan {
  const { source = 'file', record = false, prefetch = false, timeout, onError } = options;
  const { faultBytes = record ? PAGE_SIZE : DEFAULT_FAULT_BYTES } = options;
  requireArgument(
    source === 'file' || typeof source?.read === 'function',
    'paging.source must be file, or an object with a read(gpa, length, signal)',
  );
  requireArgument(
    Number.isInteger(faultBytes) &&
      faultBytes >= PAGE_SIZE &&
      faultBytes <= MOST_FAULT_BYTES &&
      (faultBytes & (faultBytes - 1)) === 0,
    `paging.faultBytes must be a power of two from ${PAGE_SIZE} to ${MOST_FAULT_BYTES}`,
  );
  requireArgument(
    !record || (prefetch === false && faultBytes === PAGE_SIZE),
    'paging.record sees only pages that fault one by one: leave out prefetch and faultBytes',
  );
  requireArgument(
    timeout === undefined || (Number.isFinite(timeout) && timeout > 0 && timeout < 2 ** 31),
    'paging.timeout must be a number of milliseconds',
  );
  requireArgument(
    onError === undefined || typeof onError === 'function',
    'paging.onError must be a function',
  );
  const runs = prefetch === true ? workingSet : prefetch || [];
  requireArgument(
    runs !== undefined,
    'the snapshot has no working set to prefetch: record one and add it (addWorkingSet), or give one',
  );
  requireWorkingSet(runs, regions);
  return {
    native: { asks: source !== 'file', faultBytes, prefetch: runs },
    ...(source === 'file' ? {} : { source }),
    ...(timeout === undefined ? {} : { timeout }),
    ...(onError === undefined ? {} : { onError }),
  };
}

async function tell(onError: (error: KvmsnapError) => unknown, error: KvmsnapError): Promise<void> {
  try {
    await onError(error);
  } catch (thrown) {
    process.emitWarning(`paging.onError failed: ${textOf(thrown)}`, { type: 'KvmsnapWarning' });
  }
}

/** Asks the source, and hands its answers over. */
export class PageServer {
  readonly #plan: PagingPlan;
  /** Of answers that are still wanted. */
  readonly #open = new Set<AbortController>();
  #native: NativeMachine | undefined;
  #failure: KvmsnapError | undefined;

  constructor(plan: PagingPlan) {
    this.#plan = plan;
  }

  /** Before the first request comes, which takes a turn of the event loop. */
  serve(native: NativeMachine): void {
    this.#native = native;
  }

  pages(id: number, gpa: bigint, length: number): void {
    void this.#answer(id, gpa, length);
  }

  /** Nothing more is wanted. */
  ended(): void {
    for (const controller of this.#open) controller.abort();
    this.#open.clear();
  }

  /** A stop as the native machine knows it, with the source's own error as cause. */
  told(stop: NativeStop): NativeStop {
    if (stop.error?.code !== 'ERR_PAGE_SOURCE') return stop;
    const error =
      this.#failure === undefined
        ? stop.error
        : new KvmsnapError('ERR_PAGE_SOURCE', stop.error.message, { cause: this.#failure.cause });
    const { onError } = this.#plan;
    // Not in the way of others who wait for the machine.
    if (onError) queueMicrotask(() => void tell(onError, error));
    return { ...stop, error };
  }

  async #answer(id: number, gpa: bigint, length: number): Promise<void> {
    const { source, timeout } = this.#plan;
    const controller = new AbortController();
    const { signal } = controller;
    this.#open.add(controller);
    let timer: NodeJS.Timeout | undefined;
    let bytes: Uint8Array | KvmsnapError;
    try {
      const late = new Promise<never>((_, reject) => {
        // Whoever was waiting has been turned away, and a source may never answer then.
        signal.addEventListener('abort', () => reject(signal.reason), { once: true });
      });
      // A source that throws at once leaves nobody who would hear of it.
      late.catch(() => undefined);
      if (timeout !== undefined) {
        timer = setTimeout(
          () => controller.abort(new KvmsnapError('ERR_TIMEOUT', `no answer in ${timeout} ms`)),
          timeout,
        );
        timer.unref();
      }
      bytes = await Promise.race([(source as PageSource).read(gpa, length, signal), late]);
      if (!(bytes instanceof Uint8Array)) throw new TypeError('it gave no Uint8Array');
    } catch (cause) {
      bytes = new KvmsnapError('ERR_PAGE_SOURCE', textOf(cause), { cause });
    } finally {
      clearTimeout(timer);
    }
    // False: paging has ended.
    if (!this.#open.delete(controller)) return;
    if (bytes instanceof KvmsnapError) this.#failure ??= bytes;
    this.#native?.answerPages(id, bytes);
  }
}
