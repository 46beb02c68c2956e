/** What a long call tells its caller while it works, by a function that may do anything. */
import { KvmsnapError } from './errors.js';

/**
 * Called with the bytes that are done and with all that there are. What it throws, or what the promise
 * that it returns rejects with, ends the call with that very error, and nothing is committed. The call does
 * not end before such promises have settled.
 */
export type OnProgress = (doneBytes: number, totalBytes: number) => unknown;

/** Reports to the caller. */
export interface Progress {
  /** Never throws. */
  report(doneBytes: number, totalBytes: number): void;
  /** Fires when the caller's does, or when the caller's function has failed. */
  readonly signal: AbortSignal;
  /** Before anything is committed: throws what the caller's function did. */
  settle(): Promise<void>;
}

/** Does `work`, which settles before it commits. It fails with the function's own error if that fails. */
export async function withProgress<T>(
  options: { onProgress?: OnProgress | undefined; signal?: AbortSignal | undefined },
  work: (progress: Progress) => Promise<T>,
): Promise<T> {
  const { onProgress, signal } = options;
  const controller = new AbortController();
  const open = new Set<Promise<void>>();
  let failure: { error: unknown } | undefined;
  const fail = (error: unknown): void => {
    failure ??= { error };
    controller.abort(error);
  };
  const abort = (): void => controller.abort(signal?.reason);
  const stopped = new Promise<void>((resolve) => {
    controller.signal.addEventListener('abort', () => resolve(), { once: true });
  });
  signal?.addEventListener('abort', abort, { once: true });
  if (signal?.aborted) abort();
  const progress: Progress = {
    signal: controller.signal,
    report(doneBytes, totalBytes) {
      if (onProgress === undefined || failure !== undefined) return;
      try {
        const told: unknown = onProgress(doneBytes, totalBytes);
        if (told === undefined) return;
        // Also of what only looks like a promise, and throws when it is looked at.
        const settled = Promise.resolve(told).then(() => undefined, fail);
        open.add(settled);
        settled.then(() => open.delete(settled));
      } catch (error) {
        fail(error);
      }
    },
    async settle() {
      await Promise.race([Promise.all(open), stopped]);
      if (failure !== undefined) throw failure.error;
      if (signal?.aborted) {
        throw new KvmsnapError('ERR_ABORTED', 'the call was aborted', { cause: signal.reason });
      }
    },
  };
  try {
    return await work(progress);
  } catch (error) {
    throw failure === undefined ? error : failure.error;
  } finally {
    signal?.removeEventListener('abort', abort);
  }
}
