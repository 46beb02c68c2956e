/** AbortSignals of long calls. */
import { KvmsnapError } from '../errors.js';

/** Throws `ERR_ABORTED`, with the signal's reason as cause, if it has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) {
    throw new KvmsnapError('ERR_ABORTED', 'the call was aborted', { cause: signal.reason });
  }
}

/** Runs `work`; if the signal fires meanwhile, calls `cancel`, which makes the work fail soon. */
export async function cancellable<T>(
  signal: AbortSignal | undefined,
  work: { done: Promise<T>; cancel(): void },
): Promise<T> {
  if (signal === undefined) return work.done;
  signal.addEventListener('abort', work.cancel, { once: true });
  if (signal.aborted) work.cancel();
  try {
    return await work.done;
  } finally {
    signal.removeEventListener('abort', work.cancel);
  }
}
