/** Who waits for a machine to stop, over its lives: a reset begins a new one. */
import type { NativeStop } from '../native/binding.js';

/**
 * Why a machine stopped by itself, or was poisoned; `closed`: neither, before it was closed. `code`: what
 * the guest wrote to the exit port.
 */
export type StopInfo = NativeStop;

interface Waiter {
  life: number;
  promise: Promise<StopInfo>;
  resolve: (stop: StopInfo) => void;
}

export class Stops {
  #life = 0;
  #last: { life: number; stop: NativeStop } | undefined;
  #waiters: Waiter[] = [];
  #ended: AbortController | undefined;
  #closed = false;

  /**
   * The stop of this life; of a later one, if this one ends by a reset. A reset that fails has begun a life
   * that nobody else knows of, and poisoned the machine in it.
   */
  wait(): Promise<StopInfo> {
    if (this.#last && this.#last.life >= this.#life) return Promise.resolve(this.#last.stop);
    if (this.#closed) return Promise.resolve({ reason: 'closed' });
    let waiter = this.#waiters.find(({ life }) => life === this.#life);
    if (waiter === undefined) {
      let resolve: Waiter['resolve'] = () => {};
      const promise = new Promise<StopInfo>((settle) => {
        resolve = settle;
      });
      waiter = { life: this.#life, promise, resolve };
      this.#waiters.push(waiter);
    }
    return waiter.promise;
  }

  /** News of a stop, which may be of a life that is over by now. */
  stopped(stop: NativeStop, life: number): void {
    this.#last = { life, stop };
    const told = this.#waiters.filter((waiter) => waiter.life <= life);
    this.#waiters = this.#waiters.filter((waiter) => waiter.life > life);
    for (const { resolve } of told) resolve(stop);
  }

  /** With `stopped` it is over from the start. */
  begin(life: number, stopped?: NativeStop): void {
    this.#life = life;
    if (stopped) this.stopped(stopped, life);
    // Whoever has the signal of the life that is over hears of the next stop.
    this.#ended = undefined;
  }

  /** Fires when the machine stops, in this life or, if this one ends by a reset, later; or is closed. */
  get ended(): AbortSignal {
    if (this.#ended === undefined) {
      const ended = new AbortController();
      this.#ended = ended;
      this.wait().then(() => ended.abort());
      if (this.#closed) ended.abort();
    }
    return this.#ended.signal;
  }

  /** The machine is closed: no more news will come. */
  close(): void {
    this.#closed = true;
    this.#ended?.abort();
    for (const { resolve } of this.#waiters.splice(0)) resolve({ reason: 'closed' });
  }
}
