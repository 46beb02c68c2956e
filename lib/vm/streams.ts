/** What a guest writes, and what it reads from its console. */

import type { NativeMachine } from '../native/binding.js';
import { Console } from './console.js';
import { OutputGate, OutputStream } from './output.js';

/** Numbers of the addon's. */
const CONSOLE = 0;
const DEBUG = 1;

export class Streams {
  readonly #native: NativeMachine;
  readonly #gates: readonly [OutputGate, OutputGate];
  // Streams cost more than a machine object: made for those who use them.
  #console: Console | undefined;
  #debug: OutputStream | undefined;
  #closed = false;

  constructor(native: NativeMachine) {
    this.#native = native;
    this.#gates = [this.#gate(CONSOLE), this.#gate(DEBUG)];
  }

  get console(): Console {
    if (this.#console === undefined) {
      const input = (bytes: Uint8Array) => this.#native.serialInput(bytes);
      this.#console = new Console(this.#gates[CONSOLE], input);
      if (this.#closed) this.#console.endInput();
    }
    return this.#console;
  }

  get debug(): OutputStream {
    this.#debug ??= new OutputStream(this.#gates[DEBUG]);
    return this.#debug;
  }

  /** Bytes from the guest. */
  take(stream: 0 | 1, bytes: Uint8Array): void {
    this.#gates[stream].take(bytes);
  }

  /**
   * The machine is about to go. Nothing is typed any more; what the guest wrote while nobody took it comes
   * out before the end.
   */
  close(): void {
    this.#closed = true;
    this.#console?.endInput();
    this.#setFlow(CONSOLE, true);
    this.#setFlow(DEBUG, true);
  }

  /** No more bytes will come: the machine is gone. */
  end(): void {
    for (const gate of this.#gates) gate.end();
  }

  #gate(stream: 0 | 1): OutputGate {
    return new OutputGate((flowing) => this.#setFlow(stream, flowing));
  }

  #setFlow(stream: 0 | 1, flowing: boolean): void {
    if (this.#native.status !== 'closed') this.#native.setOutputFlow(stream, flowing);
  }
}
