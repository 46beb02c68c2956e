/** The loop over `vm.dirty()`. */
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { requireSignal } from '../arguments.js';
import { type ErrorCode, KvmsnapError, requireArgument } from '../errors.js';
import type { NativeMachine } from '../native/binding.js';
import { throwIfAborted } from '../vm/abort.js';
import { type DirtyEpoch, epochOf, TRACKERS, type TrackerName } from './epoch.js';

export interface DirtyOptions {
  /**
   * Default `bitmap`. `ring` needs a machine made with `dirtyRing`, `uffd-wp` one whose memory is not
   * mapped from a snapshot's files. `cow` freezes the memory, which stays copy-on-write.
   */
  tracker?: TrackerName;
  /** Milliseconds from one harvest to the next; default 100. 0: without a break. */
  every?: number;
  /** Ends the loop with `ERR_ABORTED`. */
  signal?: AbortSignal;
}

/** What the loop needs to know of its machine. */
export interface TrackedMachine {
  native: NativeMachine;
  /** Fires when the machine is being closed, or its guest has ended. */
  ended: AbortSignal;
  /** Brings in memory that is still to come on demand. */
  prepare(): Promise<void>;
}

/** `ERR_INVALID_ARGUMENT`. */
export function checkDirtyOptions(options: DirtyOptions): Required<Omit<DirtyOptions, 'signal'>> {
  const { tracker = 'bitmap', every = 100 } = options;
  requireArgument(
    TRACKERS.includes(tracker),
    `tracker must be one of ${TRACKERS.join(', ')}, not ${String(tracker)}`,
  );
  requireArgument(
    Number.isFinite(every) && every >= 0 && every < 2 ** 31,
    'every must be a number of milliseconds, 0 or more',
  );
  requireSignal(options.signal);
  return { tracker, every };
}

export async function* trackDirty(
  { native, ended, prepare }: TrackedMachine,
  options: DirtyOptions,
): AsyncGenerator<DirtyEpoch, void, undefined> {
  const { tracker, every } = checkDirtyOptions(options);
  const { signal } = options;
  throwIfAborted(signal);
  await prepare();
  await native.startTracking(tracker);
  const start = performance.now();
  try {
    for (let due = start + every; ; due = Math.max(due + every, performance.now())) {
      await until(due, signal ? AbortSignal.any([ended, signal]) : ended);
      throwIfAborted(signal);
      // Asked first: a guest that ends after this is for the next round.
      const last = ended.aborted;
      const { slots, harvestUs, lostUs } = await native.harvestDirty();
      yield epochOf({ at: performance.now() - start, harvestUs, lostUs }, slots);
      if (last) return;
    }
  } catch (error) {
    // The machine was closed: there is nothing more to tell.
    if (codeOf(error) !== 'ERR_CLOSED') throw error;
  } finally {
    await stop(native);
  }
}

async function until(due: number, wake: AbortSignal): Promise<void> {
  if (wake.aborted) return;
  const wait = due - performance.now();
  // A turn of the event loop in any case, so that a loop without breaks stops nobody else.
  if (wait <= 0) await turn();
  else await sleep(wait, undefined, { signal: wake }).catch(() => undefined);
}

async function stop(native: NativeMachine): Promise<void> {
  try {
    await native.stopTracking();
  } catch (error) {
    // What is closed needs no restoring.
    if (codeOf(error) !== 'ERR_CLOSED') throw error;
  }
}

const codeOf = (error: unknown): ErrorCode | undefined =>
  error instanceof KvmsnapError ? error.code : undefined;
