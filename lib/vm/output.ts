/** A guest's output stream. */
import { Readable } from 'node:stream';

/** What is kept of the output before anyone reads it: the last MiB. */
const SCROLLBACK = 1 << 20;

/**
 * Holds output until somebody reads, and then makes the guest wait for its reader. A guest whose
 * output nobody ever reads is not held up: the oldest bytes are dropped beyond 1 MiB.
 */
export class OutputGate {
  readonly #setFlow: (flowing: boolean) => void;
  #push: (bytes: Uint8Array | null) => boolean = () => false;
  #kept: Uint8Array[] = [];
  #keptBytes = 0;
  #wanted = false;
  #read = false;
  #ended = false;

  constructor(setFlow: (flowing: boolean) => void) {
    this.#setFlow = setFlow;
  }

  /** The stream that {@link want} speaks for. */
  attach(push: (bytes: Uint8Array | null) => boolean): void {
    this.#push = push;
  }

  /** Bytes from the guest. */
  take(bytes: Uint8Array): void {
    this.#kept.push(bytes);
    this.#keptBytes += bytes.length;
    if (this.#wanted) {
      this.#drain();
    } else if (this.#read) {
      this.#setFlow(false);
    } else {
      while (this.#keptBytes - (this.#kept[0]?.length ?? 0) >= SCROLLBACK) {
        this.#keptBytes -= this.#kept.shift()?.length ?? 0;
      }
    }
  }

  /** The stream wants bytes. */
  want(): void {
    this.#wanted = true;
    if (!this.#read) this.#read = true;
    else if (!this.#ended) this.#setFlow(true);
    this.#drain();
  }

  /** No more bytes will come: the machine is gone. */
  end(): void {
    this.#ended = true;
    if (this.#wanted) this.#drain();
  }

  #drain(): void {
    while (this.#wanted && this.#kept.length > 0) {
      const bytes = this.#kept.shift() as Uint8Array;
      this.#keptBytes -= bytes.length;
      this.#wanted = this.#push(bytes);
    }
    if (this.#wanted && this.#ended) {
      this.#wanted = false;
      this.#push(null);
    }
  }
}

/** Output only: the debug port's. */
export class OutputStream extends Readable {
  readonly #gate: OutputGate;

  constructor(gate: OutputGate) {
    super();
    this.#gate = gate;
    gate.attach((bytes) => this.push(bytes));
  }

  override _read(): void {
    this.#gate.want();
  }
}
