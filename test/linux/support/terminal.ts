/** What a person at the guest's serial console does: read, wait for something, type. */
import type { Readable, Writable } from 'node:stream';

// Only for a guest that hangs: a busy machine is slow.
const DEFAULT_TIMEOUT_MS = 300_000;
const SHOWN_ON_FAILURE = 3000;
// A guest in emulation writes byte by byte. To look through all of its text for each of them would take longer
// than the guest takes to write it.
const LOOK_EVERY_MS = 10;

export class Terminal {
  readonly #input: Writable;
  readonly #waiting = new Set<() => void>();
  #text = '';
  #cursor = 0;
  #commands = 0;
  #ended = false;
  #lookSoon: NodeJS.Timeout | undefined;

  constructor(output: Readable, input: Writable) {
    this.#input = input;
    output.setEncoding('latin1');
    output.on('data', (chunk: string) => {
      this.#text += chunk;
      this.#lookSoon ??= setTimeout(() => this.#wake(), LOOK_EVERY_MS);
    });
    output.on('close', () => {
      this.#ended = true;
      this.#wake();
    });
  }

  /** Everything the guest has written so far. */
  get text(): string {
    return this.#text;
  }

  type(text: string): void {
    this.#input.write(text);
  }

  /** Waits for `pattern` in what comes after the last match. Fails with what the console showed. */
  until(pattern: RegExp, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<RegExpExecArray> {
    return new Promise((resolve, reject) => {
      const settle = (finish: () => void): void => {
        clearTimeout(timer);
        this.#waiting.delete(look);
        finish();
      };
      const fail = (why: string): void => {
        const shown = this.#text.slice(-SHOWN_ON_FAILURE);
        settle(() =>
          reject(new Error(`${why} waiting for ${pattern}; the console ends:\n${shown}`)),
        );
      };
      const look = (): void => {
        const match = pattern.exec(this.#text.slice(this.#cursor));
        if (match) {
          this.#cursor += match.index + match[0].length;
          settle(() => resolve(match));
        } else if (this.#ended) {
          fail('the console ended while');
        }
      };
      const timer = setTimeout(() => fail(`${timeoutMs} ms passed`), timeoutMs);
      this.#waiting.add(look);
      look();
    });
  }

  /** What a shell command prints. Throws unless it exits with 0. */
  async run(command: string, timeoutMs?: number): Promise<string> {
    const mark = `end-of-command-${++this.#commands}`;
    this.type(`${command}\necho "${mark}:$?"\n`);
    const start = this.#cursor;
    const [, status] = await this.until(new RegExp(`${mark}:(\\d+)\\n`), timeoutMs);
    const output = this.#text.slice(start, this.#text.lastIndexOf(`${mark}:`));
    if (status !== '0') throw new Error(`exit status ${status} of ${command}:\n${output}`);
    return output;
  }

  #wake(): void {
    clearTimeout(this.#lookSoon);
    this.#lookSoon = undefined;
    for (const look of [...this.#waiting]) look();
  }
}
