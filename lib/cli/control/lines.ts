/** Newline-delimited JSON over a socket, with a limit on what a peer can make us hold. */
import { KvmsnapError } from '../../errors.js';

/** Bytes of one line from a client. Console input comes in pieces that fit. */
export const MAX_REQUEST_LINE = 128 * 1024;
/** Bytes of one line from a host process. */
export const MAX_REPLY_LINE = 1024 * 1024;
/** Bytes of console data in one message: fits either limit as base64. */
export const MAX_CONSOLE_CHUNK = 48 * 1024;

const NEWLINE = 10;

/** Cuts bytes into lines and parses each. `ERR_CONTROL`: too long, or no JSON. */
export class LineReader {
  readonly #limit: number;
  #pieces: Buffer[] = [];
  #held = 0;

  constructor(limit: number) {
    this.#limit = limit;
  }

  /** The values of the lines that `chunk` completes. */
  *push(chunk: Buffer): Generator<unknown> {
    let start = 0;
    for (let end = chunk.indexOf(NEWLINE); end >= 0; end = chunk.indexOf(NEWLINE, start)) {
      this.#hold(chunk.subarray(start, end));
      start = end + 1;
      const line = Buffer.concat(this.#pieces);
      this.#pieces = [];
      this.#held = 0;
      yield parse(line);
    }
    this.#hold(chunk.subarray(start));
  }

  #hold(piece: Buffer): void {
    if (piece.length === 0) return;
    this.#held += piece.length;
    if (this.#held > this.#limit) {
      throw new KvmsnapError(
        'ERR_CONTROL',
        `a message of the control protocol is longer than ${this.#limit} bytes`,
      );
    }
    this.#pieces.push(piece);
  }
}

function parse(line: Buffer): unknown {
  try {
    return JSON.parse(line.toString('utf8'));
  } catch (cause) {
    throw new KvmsnapError('ERR_CONTROL', 'a message of the control protocol is not JSON', {
      cause,
    });
  }
}
