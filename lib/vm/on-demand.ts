/** A machine whose memory comes on demand, as its host sees it. docs/on-demand.md. */
import { requireSignal } from '../arguments.js';
import { KvmsnapError, requireArgument } from '../errors.js';
import type { NativeMachine, PageRun } from '../native/binding.js';
import { PAGE_SIZE } from '../units.js';
import { cancellable, throwIfAborted } from './abort.js';
import type { PagingFacts, WorkingSet } from './paging.js';

/** Undefined for a machine that has all of its memory. */
export function pagingFactsOf(native: NativeMachine): PagingFacts | undefined {
  const facts = native.pagingFacts();
  if (facts === undefined) return undefined;
  const { active, faults, faulted, prefetched, fetched, left, p50Us, p99Us } = facts;
  return {
    active,
    faults,
    faultedPages: faulted,
    prefetchedPages: prefetched,
    fetchedPages: fetched,
    pagesLeft: left,
    bytes: (faulted + prefetched + fetched) * PAGE_SIZE,
    latencyUs: { p50: p50Us, p99: p99Us },
  };
}

/** `ERR_STATE` for a machine whose memory never came on demand. */
export function workingSetOf(native: NativeMachine): WorkingSet {
  const runs = native.workingSet();
  if (runs !== undefined) return runs;
  throw new KvmsnapError(
    'ERR_STATE',
    'nobody saw the pages being touched: restore with paging: { record: true }',
  );
}

/** What to bring in; default: all memory. */
export interface PageInOptions {
  gpa?: bigint;
  /** Bytes; goes with `gpa`. */
  length?: number;
  signal?: AbortSignal;
}

/**
 * All memory, for what needs it. A machine whose source has failed is left alone: it is poisoned, which is
 * what the caller's next step says.
 */
export async function bringInAll(native: NativeMachine, signal?: AbortSignal): Promise<void> {
  throwIfAborted(signal);
  if (native.pagingFacts()?.active) await pageIn(native, signal ? { signal } : {});
}

/** At once where nothing is missing. `ERR_PAGE_SOURCE`, also when the source has failed before. */
export async function pageIn(
  native: NativeMachine,
  { gpa, length, signal }: PageInOptions,
): Promise<void> {
  requireSignal(signal);
  throwIfAborted(signal);
  requireArgument(
    (gpa === undefined && length === undefined) ||
      (typeof gpa === 'bigint' && gpa >= 0n && Number.isSafeInteger(length) && Number(length) > 0),
    'a range has a gpa (bigint) and a length in bytes',
  );
  const facts = native.pagingFacts();
  // Nothing comes any more, and some is missing: its source failed, which the call below says.
  if (facts === undefined || (!facts.active && facts.left === 0)) return;
  const ranges = gpa === undefined ? undefined : [pagesAround(gpa, length as number)];
  await cancellable(signal, native.pageIn(ranges));
}

function pagesAround(gpa: bigint, length: number): PageRun {
  const page = BigInt(PAGE_SIZE);
  const first = gpa / page;
  return { gpa: first * page, count: Number((gpa + BigInt(length) + page - 1n) / page - first) };
}
