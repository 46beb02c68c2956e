/** What is opened once for any number of uses, and closed after the last of them. */
import { Shared } from './shared.js';

/** A use that has begun goes on when {@link close} is called meanwhile, and so does the opening for it. */
export class Opening<T> {
  readonly #shared: Shared<T>;
  readonly #closeIt: (opened: T) => void;
  #uses = 0;
  #closed = false;

  constructor(open: (signal: AbortSignal) => Promise<T>, close: (opened: T) => void) {
    this.#shared = new Shared(open);
    this.#closeIt = close;
  }

  /** When it is open, and what opening it threw. */
  get result(): Promise<T> {
    return this.#shared.result;
  }

  /** Whoever waited for it has given up: to be opened anew. */
  get abandoned(): boolean {
    return this.#shared.abandoned;
  }

  /** `ERR_ABORTED` once `signal` fires while it is being opened; what `open` and `work` throw. */
  async use<R>(signal: AbortSignal | undefined, work: (opened: T) => R | Promise<R>): Promise<R> {
    this.#uses++;
    try {
      return await work(await this.#shared.wait(signal));
    } finally {
      this.#uses--;
      this.#closeUnused();
    }
  }

  /** To be called once, after which no use may begin. */
  close(): void {
    this.#closed = true;
    this.#closeUnused();
  }

  #closeUnused(): void {
    if (!this.#closed || this.#uses > 0) return;
    this.#shared.result.then(this.#closeIt, () => undefined);
  }
}
