/** Machines restored in other processes. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { SnapshotStats } from '../../../lib/index.js';
import { Terminal } from './terminal.js';

const SCRIPT = join(import.meta.dirname, 'restored.mjs');
const PACKAGE = join(import.meta.dirname, '../../../dist/index.js');

type Message =
  | { started: true }
  | { saved: SnapshotStats }
  | { stopped: { reason: string } }
  | { failed: string };

export class RestoredElsewhere implements AsyncDisposable {
  readonly terminal: Terminal;
  readonly #child: ChildProcess;
  readonly #messages: Message[] = [];
  readonly #arrived = new EventTarget();
  readonly #exited: Promise<number | null>;

  /** Starts a process that restores snapshot `ref` and lets it run. */
  constructor(store: string, ref: string) {
    if (!existsSync(PACKAGE)) throw new Error('the package is not built: run `npm run build`');
    this.#child = spawn(process.execPath, [SCRIPT, store, ref], {
      stdio: ['pipe', 'pipe', 'inherit', 'ipc'],
    });
    this.terminal = new Terminal(this.#child.stdout!, this.#child.stdin!);
    this.#child.on('message', (message) => {
      this.#messages.push(message as Message);
      this.#arrived.dispatchEvent(new Event('message'));
    });
    this.#exited = once(this.#child, 'exit').then(([code]) => {
      this.#arrived.dispatchEvent(new Event('message'));
      return code as number | null;
    });
  }

  async started(): Promise<void> {
    await this.#next('started');
  }

  /** Snapshots the running machine where it is. */
  async snapshot(tag: string): Promise<SnapshotStats> {
    this.#child.send({ snapshot: { tag } });
    return (await this.#next('saved')).saved;
  }

  /** Why the guest stopped; the process has ended without an error by then. */
  async stopped(): Promise<string> {
    const { stopped } = await this.#next('stopped');
    const code = await this.#exited;
    if (code !== 0) throw new Error(`the process exited with ${code}`);
    return stopped.reason;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.#exited;
  }

  async #next<K extends string>(name: K): Promise<Extract<Message, Record<K, unknown>>> {
    for (;;) {
      const found = this.#messages.find((message) => name in message);
      if (found) return found as Extract<Message, Record<K, unknown>>;
      const failed = this.#messages.find((message) => 'failed' in message);
      if (failed) throw new Error(`in the other process: ${JSON.stringify(failed)}`);
      if (this.#child.exitCode !== null || this.#child.signalCode !== null) {
        throw new Error(`the process ended without telling "${name}"`);
      }
      await once(this.#arrived, 'message');
    }
  }
}
