/** A snapshot that is in this process's memory only. */
import type { NativeMachine } from '../native/binding.js';
import { type ForkOptions, type Forks, forkAs, planFork } from './fork.js';
import type { IdentityOptions } from './identity.js';
import { makeMachine } from './maker.js';
import { type HasPoint, type Point, sharePoint } from './point.js';
import type { Vm } from './vm.js';

/**
 * A machine's instant, held in memory: nothing is written. Machines are made from it, and its own
 * machine can go back to it ({@link Vm.reset}). It shares all pages with them that none has written.
 */
export class MemorySnapshot implements HasPoint, Disposable {
  /** How long the guest stood still, in milliseconds; 0 if it was not running. */
  readonly pauseMs: number;
  readonly #point: Point;

  private constructor(point: Point, pauseMs: number) {
    this.#point = point;
    this.pauseMs = pauseMs;
  }

  /** @internal Of a machine that has all of its memory. */
  static async take(
    native: NativeMachine,
    config: Point['config'],
    then: 'resume' | 'pause',
  ): Promise<MemorySnapshot> {
    const { pauseUs, ...frozen } = await native.freeze(then);
    return new MemorySnapshot({ config, ...frozen }, pauseUs / 1000);
  }

  /** A new machine, paused at the instant of the snapshot. `ERR_CLOSED`. */
  restore(options: { identity?: IdentityOptions } = {}): Promise<Vm> {
    return makeMachine(this.#point, options.identity);
  }

  /** The same, many times: see {@link Vm.fork}. */
  async fork<const Options extends number | ForkOptions = 1>(
    options?: Options,
  ): Promise<Forks<Vm, Options>> {
    const plan = planFork(options, this.#point.config.generationId);
    return forkAs(plan, (identity) => this.restore(identity ? { identity } : {}));
  }

  /** Lets go of its memory; machines that were made from it keep what they need. Idempotent. */
  close(): void {
    this.#point.image.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** @internal */
  async point(): Promise<Point> {
    return sharePoint(this.#point);
  }
}
