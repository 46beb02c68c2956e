/** A guest's output stream. */
import { Readable } from 'node:stream';

/** What is kept of the output before anyone reads it: the last MiB. */
const SCROLLBACK = 1 << 20;
/** Smaller pieces are gathered: a Buffer for each byte would cost a hundred times the bytes. */
const GATHERED = 16 << 10;

/** Bytes that wait, with room for more behind them. */
interface Piece {
  bytes: Buffer;
  used: number;
}

/**
 * Holds output until somebody reads, and then makes the guest wait for its reader. A guest whose
 * output nobody ever reads is not held up: the oldest bytes are dropped beyond 1 MiB.
 */
export class OutputGate {
  readonly #setFlow: (flowing: boolean) => void;
  #push: (bytes: Uint8Array | null) => boolean = () => false;
  #kept: Piece[] = [];
  #keptBytes = 0;
  #wanted = false;
  #read = false;
  #ended = false;
  #dropped = false;

  constructor(setFlow: (flowing: boolean) => void) {
    this.#setFlow = setFlow;
  }

  /** The stream that {@link want} speaks for. */
  attach(push: (bytes: Uint8Array | null) => boolean): void {
    this.#push = push;
  }

  /** Bytes from the guest. */
  take(bytes: Uint8Array): void {
    if (this.#dropped) return;
    this.#keep(bytes);
    if (this.#wanted) {
      this.#drain();
    } else if (this.#read) {
      this.#setFlow(false);
    } else {
      while (this.#keptBytes - (this.#kept[0]?.used ?? 0) >= SCROLLBACK) {
        this.#keptBytes -= this.#kept.shift()?.used ?? 0;
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

  /** Nobody reads any more: what the guest writes from now on is lost, and does not make it wait. */
  drop(): void {
    this.#dropped = true;
    this.#kept = [];
    this.#keptBytes = 0;
    if (this.#read && !this.#ended) this.#setFlow(true);
  }

  /** No more bytes will come: the machine is gone. */
  end(): void {
    this.#ended = true;
    if (this.#wanted) this.#drain();
  }

  #keep(bytes: Uint8Array): void {
    this.#keptBytes += bytes.length;
    const last = this.#kept.at(-1);
    if (last !== undefined && last.bytes.length - last.used >= bytes.length) {
      last.bytes.set(bytes, last.used);
      last.used += bytes.length;
      return;
    }
    // When it goes out at once there is nothing to gather.
    const whole = this.#wanted || bytes.length >= GATHERED;
    const piece = whole ? Buffer.from(bytes) : Buffer.alloc(GATHERED);
    if (!whole) piece.set(bytes);
    this.#kept.push({ bytes: piece, used: bytes.length });
  }

  #drain(): void {
    while (this.#wanted && this.#kept.length > 0) {
      const { bytes, used } = this.#kept.shift() as Piece;
      this.#keptBytes -= used;
      this.#wanted = this.#push(bytes.subarray(0, used));
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

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#gate.drop();
    done(error);
  }
}
