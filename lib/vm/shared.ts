/** Work that several callers wait for, each with a signal of its own. */
import { KvmsnapError } from '../errors.js';
import { throwIfAborted } from './abort.js';

/**
 * Done once. It goes on while anybody waits for it: a caller that gives up takes nothing from the others,
 * and the last one to give up ends it.
 */
export class Shared<T> {
  readonly result: Promise<T>;
  readonly #controller = new AbortController();
  #waiting = 0;

  constructor(work: (signal: AbortSignal) => Promise<T>) {
    this.result = work(this.#controller.signal);
    this.result.catch(() => undefined);
  }

  /** Nobody waits any more, and it has not been done: to be begun anew by whoever wants it. */
  get abandoned(): boolean {
    return this.#controller.signal.aborted;
  }

  /** `ERR_ABORTED` once `signal` fires, and what the work throws. */
  async wait(signal: AbortSignal | undefined): Promise<T> {
    throwIfAborted(signal);
    this.#waiting++;
    if (signal === undefined) return this.result;
    let giveUp: () => void = () => undefined;
    const gaveUp = new Promise<never>((_, reject) => {
      giveUp = () => {
        reject(new KvmsnapError('ERR_ABORTED', 'the call was aborted', { cause: signal.reason }));
        this.#waiting--;
        if (this.#waiting === 0) this.#controller.abort(signal.reason);
      };
    });
    signal.addEventListener('abort', giveUp, { once: true });
    try {
      return await Promise.race([this.result, gaveUp]);
    } finally {
      signal.removeEventListener('abort', giveUp);
    }
  }
}
