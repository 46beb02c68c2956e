/** The guest's serial port as a stream. */
import { Duplex, type Readable } from 'node:stream';
import { KvmsnapError } from '../errors.js';
import type { OutputGate } from './output.js';

/** How long to wait for the guest to read input when 64 KiB are queued for it already. */
const RETRY_MS = 10;

type Done = (error?: Error | null) => void;

/**
 * Both ways of COM1. Reading late gives what the guest wrote before, up to 1 MiB. It ends with its machine:
 * what was written and never taken is dropped without an error, pipes into it let go, and its output
 * ends once it is read. Input after that is dropped, too; only its own callback hears of it (`ERR_CLOSED`).
 */
export class Console extends Duplex {
  readonly #gate: OutputGate;
  readonly #input: (bytes: Uint8Array) => number;
  readonly #sources = new Set<Readable>();
  /** What the guest has no room for yet. */
  #pending: { rest: Buffer; done: Done; retry: NodeJS.Timeout } | undefined;
  #over = false;

  /** @internal */
  constructor(gate: OutputGate, input: (bytes: Uint8Array) => number) {
    super({ allowHalfOpen: true });
    this.#input = input;
    this.#gate = gate;
    gate.attach((bytes) => this.push(bytes));
    this.on('pipe', (source: Readable) => {
      if (this.#over) source.unpipe(this);
      else this.#sources.add(source);
    });
    this.on('unpipe', (source: Readable) => this.#sources.delete(source));
  }

  /** As of any stream, while the machine is there; then the input is dropped. */
  override write(
    chunk: unknown,
    encoding?: BufferEncoding | ((error?: Error | null) => void),
    done?: (error?: Error | null) => void,
  ): boolean {
    if (this.#over) return this.#refuse(encoding, done);
    return super.write(chunk, encoding as BufferEncoding, done);
  }

  /** As of any stream, while the machine is there. */
  override end(
    chunk?: unknown | (() => void),
    encoding?: BufferEncoding | (() => void),
    done?: () => void,
  ): this {
    if (this.#over) this.#refuse(chunk, encoding, done);
    else super.end(chunk, encoding as BufferEncoding, done);
    return this;
  }

  /** @internal The machine takes no more input. */
  endInput(): void {
    const pending = this.#pending;
    this.#pending = undefined;
    for (const source of this.#sources) source.unpipe(this);
    // What is still queued comes by `_write`, which drops it.
    super.end();
    this.#over = true;
    if (pending) {
      clearTimeout(pending.retry);
      pending.done();
    }
  }

  /** @internal */
  override _read(): void {
    this.#gate.want();
  }

  /** @internal */
  override _write(chunk: Buffer, _encoding: BufferEncoding, done: Done): void {
    if (this.#over) done();
    else this.#offer(chunk, done);
  }

  /** @internal */
  override _destroy(error: Error | null, done: Done): void {
    const pending = this.#pending;
    this.#pending = undefined;
    this.#gate.drop();
    done(error);
    if (pending === undefined) return;
    clearTimeout(pending.retry);
    pending.done(new KvmsnapError('ERR_CLOSED', 'the stream was destroyed'));
  }

  #offer(chunk: Buffer, done: Done): void {
    let taken: number;
    try {
      taken = this.#input(chunk);
    } catch (error) {
      done(error as Error);
      return;
    }
    if (taken === chunk.length) {
      done();
      return;
    }
    // Neither the process nor the machine, if both are forgotten, is kept for this.
    const self = new WeakRef(this);
    const retry = setTimeout(() => {
      const stream = self.deref();
      if (stream) stream.#retry();
    }, RETRY_MS).unref();
    this.#pending = { rest: chunk.subarray(taken), done, retry };
  }

  #retry(): void {
    const pending = this.#pending;
    this.#pending = undefined;
    if (pending) this.#offer(pending.rest, pending.done);
  }

  #refuse(...given: unknown[]): boolean {
    const done = given.find((value) => typeof value === 'function') as Done | undefined;
    if (done) {
      queueMicrotask(() => done(new KvmsnapError('ERR_CLOSED', 'the machine was closed')));
    }
    return true;
  }
}
