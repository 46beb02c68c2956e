// A client of QEMU's monitor.
import { setTimeout as sleep } from 'node:timers/promises';
import { classify, Lines } from './lines.mjs';

const POLL_MS = 1;

/** A promise and what settles it: Promise.withResolvers, which Node 20 has not. */
function deferred() {
  const result = {};
  result.promise = new Promise((resolve, reject) => Object.assign(result, { resolve, reject }));
  return result;
}

export class Monitor {
  #socket;
  #next = 1;
  #pending = new Map();
  #greeted = deferred();

  /** @param socket connected. */
  constructor(socket) {
    this.#socket = socket;
    const lines = new Lines();
    socket.setEncoding('utf8');
    socket.on('data', (piece) => {
      for (const line of lines.push(piece)) this.#take(classify(line));
    });
    socket.on('close', () => this.#fail(new Error('QEMU closed its monitor')));
    socket.on('error', (error) => this.#fail(error));
    // Who waits hears of it; nobody need wait.
    this.#greeted.promise.catch(() => undefined);
  }

  async ready() {
    await this.#greeted.promise;
    await this.execute('qmp_capabilities');
  }

  execute(command, options = {}) {
    const id = this.#next++;
    const waiting = deferred();
    this.#pending.set(id, { ...waiting, command });
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: options, id })}\n`);
    return waiting.promise;
  }

  /** A command that goes on as a job; resolves when it is done. */
  async job(command, options) {
    const id = `job${this.#next}`;
    await this.execute(command, { 'job-id': id, ...options });
    for (;;) {
      const job = (await this.execute('query-jobs')).find((each) => each.id === id);
      if (job === undefined) throw new Error(`${command}: its job is gone`);
      if (job.status === 'concluded') {
        await this.execute('job-dismiss', { id });
        if (job.error) throw new Error(`${command}: ${job.error}`);
        return;
      }
      await sleep(POLL_MS);
    }
  }

  /** Waits for a migration, out or in, to be whole. */
  async migrated() {
    for (;;) {
      const { status, 'error-desc': text } = await this.execute('query-migrate');
      if (status === 'completed') return;
      if (status === 'failed' || status === 'cancelled') {
        throw new Error(`the migration ${status}${text ? `: ${text}` : ''}`);
      }
      await sleep(POLL_MS);
    }
  }

  #take(message) {
    if (message.kind === 'greeting') return this.#greeted.resolve();
    const waiting = this.#pending.get(message.id);
    if (waiting === undefined) return undefined;
    this.#pending.delete(message.id);
    if (message.kind === 'answer') return waiting.resolve(message.value);
    return waiting.reject(new Error(`${waiting.command}: ${message.text}`));
  }

  #fail(error) {
    this.#greeted.reject(error);
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}
