/** The guest's serial port as a stream. */
import { Duplex } from 'node:stream';
import type { OutputGate } from './output.js';

/** How long to wait for the guest to read input when 64 KiB are queued for it already. */
const RETRY_MS = 10;

/** Both ways of COM1. Reading late gives what the guest wrote before, up to 1 MiB. */
export class Console extends Duplex {
  readonly #gate: OutputGate;
  readonly #input: (bytes: Uint8Array) => number;

  constructor(gate: OutputGate, input: (bytes: Uint8Array) => number) {
    super({ allowHalfOpen: true });
    this.#input = input;
    this.#gate = gate;
    gate.attach((bytes) => this.push(bytes));
  }

  override _read(): void {
    this.#gate.want();
  }

  override _write(
    chunk: Buffer,
    _encoding: BufferEncoding,
    done: (error?: Error | null) => void,
  ): void {
    try {
      const taken = this.#input(chunk);
      if (taken === chunk.length) done();
      else setTimeout(() => this._write(chunk.subarray(taken), 'binary', done), RETRY_MS);
    } catch (error) {
      done(error as Error);
    }
  }
}
