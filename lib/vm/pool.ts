/** Machines made in advance for one snapshot. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { KvmsnapError, requireArgument } from '../errors.js';
import type { NativeMachine } from '../native/binding.js';
import { throwIfAborted } from './abort.js';
import { type Identity, type IdentityOptions, identityOf, renewGeneration } from './identity.js';
import type { MemorySnapshot } from './memory-snapshot.js';
import { machineAt, type Point } from './point.js';
import type { Snapshot } from './snapshot.js';
import { inTurn } from './turns.js';
import { Vm } from './vm.js';

export interface PoolOptions {
  /**
   * How many machines wait at least, ready to be taken; default 4. What is missing is made in the
   * background; machines that come back all stay.
   */
  size?: number;
  /** How many there are at most, taken ones included; default 64, or `size`. Beyond, `get` waits. */
  max?: number;
}

/** What a pool has and what it did, since it was made. */
export interface PoolStats {
  /** Machines ready to be taken. */
  idle: number;
  /** Machines that were taken and not closed. */
  taken: number;
  /** Machines that are being emptied for the next one. */
  recycling: number;
  /** Calls of `get` that wait for a machine. */
  waiting: number;
  /** Machines made, of all that were handed out or wait. */
  made: number;
  /** Machines handed out. */
  handedOut: number;
  /** Machines that came back and were emptied for another use. */
  recycled: number;
  /** Machines that came back changed, or failed, and were closed. */
  discarded: number;
}

interface Waiter {
  identity: Identity;
  resolve: (vm: Vm) => void;
  reject: (error: unknown) => void;
}

const MOST = 1_000_000;

/**
 * Hands out machines that stand at a snapshot's instant, many times faster than they are made: VM, vCPUs
 * and slots are there, and get memory and state. Closing such a machine gives it back. The next one who
 * gets it finds nothing of what it was.
 *
 * @example
 * await using pool = await Pool.create(snapshot, { size: 8 });
 * await using vm = await pool.get();
 */
export class Pool implements AsyncDisposable {
  readonly #point: Point;
  readonly #size: number;
  readonly #max: number;
  readonly #idle: NativeMachine[] = [];
  readonly #waiters: Waiter[] = [];
  /** What `close` waits for: machines that are being made, emptied or closed. */
  readonly #busy = new Set<Promise<unknown>>();
  #taken = 0;
  #recycling = 0;
  #made = 0;
  #handedOut = 0;
  #recycled = 0;
  #discarded = 0;
  #refilling: Promise<void> | undefined;
  #closed: Promise<void> | undefined;

  private constructor(point: Point, size: number, max: number) {
    this.#point = point;
    this.#size = size;
    this.#max = max;
  }

  /**
   * A pool for a snapshot, which may be closed afterwards, with its machines made. `ERR_INVALID_ARGUMENT`,
   * `ERR_SNAPSHOT_INCOMPATIBLE`, `ERR_IOCTL`.
   */
  static async create(
    snapshot: Snapshot | MemorySnapshot,
    options: PoolOptions = {},
  ): Promise<Pool> {
    const { size = 4, max = Math.max(64, size) } = options;
    requireArgument(
      Number.isInteger(size) && size >= 0 && Number.isInteger(max) && max >= 1 && max <= MOST,
      `a pool has a whole number of machines: size from 0, max from 1 to ${MOST}`,
    );
    requireArgument(
      size <= max,
      'a pool cannot keep more machines ready (size) than it may have (max)',
    );
    const point = await snapshot.point();
    const pool = new Pool(point, size, max);
    try {
      while (pool.#idle.length < size) {
        pool.#idle.push(await pool.#make());
        await nextTurn();
      }
      return pool;
    } catch (error) {
      await pool.close();
      throw error;
    }
  }

  /**
   * A machine, paused at the snapshot's instant and with an identity of its own. Waits while all machines that there may be are taken.
   * `ERR_CLOSED`, `ERR_ABORTED`, `ERR_IOCTL`, `ERR_INVALID_ARGUMENT` (the identity).
   */
  async get(options: { signal?: AbortSignal; identity?: IdentityOptions } = {}): Promise<Vm> {
    const { signal } = options;
    const identity = identityOf(options.identity, 'new', this.#point.config.generationId);
    throwIfAborted(signal);
    this.#requireOpen();
    const native = this.#idle.pop();
    if (native !== undefined) return this.#track(this.#handOut(native, identity));
    if (this.#count() < this.#max) {
      this.#taken++;
      const made = this.#make().finally(() => this.#taken--);
      return this.#track(made.then((native) => this.#handOut(native, identity)));
    }
    return this.#wait(identity, signal);
  }

  get stats(): PoolStats {
    return {
      idle: this.#idle.length,
      taken: this.#taken,
      recycling: this.#recycling,
      waiting: this.#waiters.length,
      made: this.#made,
      handedOut: this.#handedOut,
      recycled: this.#recycled,
      discarded: this.#discarded,
    };
  }

  /**
   * Closes the machines that wait; those that are taken are closed when they come back, and their
   * `close()` waits for that. Calls of `get`
   * that wait fail with `ERR_CLOSED`. Idempotent.
   */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #requireOpen(): void {
    if (this.#closed) throw new KvmsnapError('ERR_CLOSED', 'the pool was closed');
  }

  #count(): number {
    return this.#idle.length + this.#taken + this.#recycling;
  }

  async #make(): Promise<NativeMachine> {
    const native = await machineAt(this.#point, SILENT, 'keep');
    this.#made++;
    return native;
  }

  async #handOut(native: NativeMachine, identity: Identity): Promise<Vm> {
    this.#taken++;
    try {
      const { machine, config } = this.#point;
      const life = await inTurn(() => native.renew(machine, identity.clock));
      renewGeneration(native, identity, config.generationId);
      this.#requireOpen();
      this.#handedOut++;
      this.#refill();
      return Vm.fromPool(native, this.#point, life, (owned) => this.#takeBack(owned));
    } catch (error) {
      this.#taken--;
      void this.#discard(native);
      throw error;
    }
  }

  #serve({ identity, resolve, reject }: Waiter, native: NativeMachine): void {
    this.#track(this.#handOut(native, identity)).then(resolve, reject);
  }

  /** Its owner waits until it has lost the machine, but not until that is emptied. */
  async #takeBack(owned: NativeMachine): Promise<void> {
    let native: NativeMachine;
    try {
      native = await owned.handOver();
    } catch {
      this.#taken--;
      return this.#discard(owned);
    }
    this.#taken--;
    // Slots and their flags are its user's to change, and a pool's machines have none of that.
    const changed = native.regions().some(({ flags }) => flags !== 0);
    if (this.#closed || changed) return this.#discard(native);
    void this.#track(this.#recycle(native));
  }

  async #recycle(native: NativeMachine): Promise<void> {
    this.#recycling++;
    try {
      await native.recycle(this.#point.machine, this.#point.image);
    } catch {
      this.#recycling--;
      return this.#discard(native);
    }
    this.#recycling--;
    if (this.#closed) return this.#discard(native);
    this.#recycled++;
    const waiter = this.#waiters.shift();
    if (waiter) this.#serve(waiter, native);
    else this.#idle.push(native);
  }

  #discard(native: NativeMachine): Promise<void> {
    this.#discarded++;
    const closing = this.#track(native.close());
    this.#refill();
    return closing;
  }

  #track<T>(work: Promise<T>): Promise<T> {
    this.#busy.add(work);
    const done = () => this.#busy.delete(work);
    work.then(done, done);
    return work;
  }

  /** Makes what is missing, one machine a turn of the event loop. */
  #refill(): void {
    this.#refilling ??= this.#fill();
  }

  async #fill(): Promise<void> {
    try {
      await nextTurn();
      while (!this.#closed && this.#lacks()) {
        const native = await this.#make();
        const waiter = this.#waiters.shift();
        if (this.#closed) void this.#discard(native);
        else if (waiter) this.#serve(waiter, native);
        else this.#idle.push(native);
        await nextTurn();
      }
    } catch (error) {
      // Those who wait hear why; a later `get` tries again and says so itself.
      for (const { reject } of this.#waiters.splice(0)) reject(error);
    } finally {
      // At once after the last look: what is missing from now on is for the next.
      this.#refilling = undefined;
    }
  }

  #lacks(): boolean {
    const wanted = this.#waiters.length > 0 || this.#idle.length + this.#recycling < this.#size;
    return wanted && this.#count() < this.#max;
  }

  #wait(identity: Identity, signal: AbortSignal | undefined): Promise<Vm> {
    return new Promise((resolve, reject) => {
      const waiter: Waiter = {
        identity,
        resolve: (vm) => {
          signal?.removeEventListener('abort', abort);
          resolve(vm);
        },
        reject: (error) => {
          signal?.removeEventListener('abort', abort);
          reject(error);
        },
      };
      const abort = () => {
        const at = this.#waiters.indexOf(waiter);
        // Already on its way: it is handed out.
        if (at < 0) return;
        this.#waiters.splice(at, 1);
        waiter.reject(
          new KvmsnapError('ERR_ABORTED', 'the call was aborted', { cause: signal?.reason }),
        );
      };
      signal?.addEventListener('abort', abort, { once: true });
      this.#waiters.push(waiter);
    });
  }

  async #close(): Promise<void> {
    // After `#closed` was set, which it is when the first await gives way.
    await Promise.resolve();
    for (const { reject } of this.#waiters.splice(0)) {
      reject(new KvmsnapError('ERR_CLOSED', 'the pool was closed'));
    }
    await this.#refilling;
    for (const native of this.#idle.splice(0)) void this.#discard(native);
    while (this.#busy.size > 0) await Promise.allSettled(this.#busy);
    this.#point.image.close();
  }
}

/** For machines that nobody has. */
const SILENT = { stopped() {}, output() {}, exit() {} };
