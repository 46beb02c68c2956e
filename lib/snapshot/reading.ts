/**
 * One call that reads a store: what it has read so far, what it may still, and when it has held the event
 * loop for long enough.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { KvmsnapError } from '../errors.js';
import { requireWithin, type StoreLimits } from './limits.js';
import type { Steps } from './steps.js';

/** How long it holds the event loop at a time, in milliseconds, give or take one step. */
const SLICE_MS = 4;
/** Of blobs whose content is kept for the next one that names them. */
const KEPT_BYTES = 16 * 1024 * 1024;

export interface ReadOptions {
  signal?: AbortSignal | undefined;
}

interface Kept {
  content: Promise<unknown>;
  bytes: number;
}

export class Reading {
  readonly store: string;
  readonly limits: StoreLimits;
  readonly signal: AbortSignal | undefined;
  #read = 0;
  #since = performance.now();
  readonly #kept = new Map<string, Kept>();
  #keptBytes = 0;

  constructor(store: string, limits: StoreLimits, { signal }: ReadOptions = {}) {
    this.store = store;
    this.limits = limits;
    this.signal = signal;
    this.throwIfAborted();
  }

  /** Before anything is read. `ERR_SNAPSHOT_LIMIT`. */
  willRead(bytes: number, what: string): void {
    this.#read += bytes;
    requireWithin(
      this.limits,
      'readBytes',
      this.#read,
      `with its ${what} the call would read more bytes of the store than it may`,
    );
  }

  throwIfAborted(): void {
    if (this.signal?.aborted) {
      throw new KvmsnapError('ERR_ABORTED', 'reading the store was aborted', {
        cause: this.signal.reason,
      });
    }
  }

  /** Lets others have the event loop, if it is their turn. `ERR_ABORTED`. */
  async breathe(): Promise<void> {
    if (performance.now() - this.#since < SLICE_MS) return;
    await this.rest();
  }

  /** The same, whether it is or not. */
  async rest(): Promise<void> {
    await nextTurn();
    this.throwIfAborted();
    this.#since = performance.now();
  }

  /** Runs work that may be long. */
  async run<T>(steps: Steps<T>): Promise<T> {
    for (;;) {
      const step = steps.next();
      if (step.done) return step.value;
      await this.breathe();
    }
  }

  /** What `make` gives for a blob, made once for as many as name it. `bytes`: of the blob. */
  once<T>(kind: string, digest: string, bytes: number, make: () => Promise<T>): Promise<T> {
    const key = `${kind} ${digest}`;
    const known = this.#kept.get(key);
    if (known) return known.content as Promise<T>;
    const content = make();
    this.#kept.set(key, { content, bytes });
    this.#keptBytes += bytes;
    for (const [oldest, kept] of this.#kept) {
      if (this.#keptBytes <= KEPT_BYTES || oldest === key) break;
      this.#kept.delete(oldest);
      this.#keptBytes -= kept.bytes;
    }
    return content;
  }
}
