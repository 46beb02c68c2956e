/** A client's end of the control socket of a named machine. */
import { connect, type Socket } from 'node:net';
import { Readable } from 'node:stream';
import type { z } from 'zod';
import { KvmsnapError } from '../../errors.js';
import type { Stop } from '../stop.js';
import { LineReader, MAX_CONSOLE_CHUNK, MAX_REPLY_LINE } from './lines.js';
import {
  checkMessage,
  dirtyResultSchema,
  type EpochSummary,
  type MachineInfo,
  type Reply,
  type Request,
  replySchema,
  type SnapshotResult,
  snapshotResultSchema,
  statusSchema,
  unpackError,
} from './protocol.js';
import { findMachine } from './registry.js';

type Call<R = Request> = R extends Request ? Omit<R, 'id'> : never;
interface Pending {
  resolve(result: unknown): void;
  reject(error: Error): void;
  onProgress?: ((done: number, total: number) => void) | undefined;
  onEpoch?: ((epoch: EpochSummary) => void) | undefined;
}
type Listeners = Pick<Pending, 'onProgress' | 'onEpoch'>;

/**
 * A host process answers questions about its status at once, whatever its guest does. One that is silent for
 * so long hangs, or was stopped.
 */
const SILENCE_MS = 8000;
/** The host process is asked so often within that time. */
const QUESTIONS = 4;

export class MachineClient implements Disposable {
  /** Console output, after {@link attach}. Ends with the machine, or with the connection. */
  readonly output: Readable;
  /** Why the machine ended. `ERR_CONTROL` when the connection is lost before. */
  readonly stopped: Promise<Stop>;
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  #nextId = 1;
  #failure: Error | undefined;
  #settle: { resolve(stop: Stop): void; reject(error: Error): void } | undefined;
  #heard = performance.now();
  readonly #watch: NodeJS.Timeout;

  private constructor(name: string, socket: Socket, silenceMs: number) {
    this.#socket = socket;
    this.#watch = this.#watchFor(name, silenceMs);
    this.output = new Readable({ read: () => socket.resume() });
    this.stopped = new Promise((resolve, reject) => {
      this.#settle = { resolve, reject };
    });
    // Most clients do not wait for the end.
    this.stopped.catch(() => undefined);
    const reader = new LineReader(MAX_REPLY_LINE);
    socket.on('data', (chunk) => {
      this.#heard = performance.now();
      try {
        for (const message of reader.push(chunk)) this.#take(checkMessage(replySchema, message));
      } catch (error) {
        this.#fail(error as Error);
      }
    });
    socket.on('error', (cause) => this.#fail(lost(name, cause)));
    socket.once('close', () => this.#fail(lost(name)));
  }

  /** `ERR_MACHINE_NAME`: no such machine. `ERR_CONTROL`: its host process does not answer. */
  static async connect(name: string): Promise<MachineClient> {
    const { socket: path } = await findMachine(name);
    return MachineClient.open(name, path);
  }

  /** Connects to a socket by its path. `silenceMs`: after so long without an answer, it fails. */
  static async open(name: string, path: string, silenceMs = SILENCE_MS): Promise<MachineClient> {
    const socket = connect(path);
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve);
      socket.once('error', (cause) => reject(lost(name, cause)));
    });
    return new MachineClient(name, socket, silenceMs);
  }

  async status(): Promise<MachineInfo> {
    return this.#call({ op: 'status' }, statusSchema);
  }

  async pause(): Promise<void> {
    await this.#request({ op: 'pause' });
  }

  async resume(): Promise<void> {
    await this.#request({ op: 'resume' });
  }

  async stop(kill: boolean): Promise<void> {
    await this.#request({ op: 'stop', kill });
  }

  async attach(): Promise<void> {
    await this.#request({ op: 'attach' });
  }

  /** Resolves when the guest's serial queue has taken all. */
  async input(bytes: Uint8Array): Promise<void> {
    for (let at = 0; at < bytes.length; at += MAX_CONSOLE_CHUNK) {
      const data = Buffer.from(bytes.subarray(at, at + MAX_CONSOLE_CHUNK)).toString('base64');
      await this.#request({ op: 'input', data });
    }
  }

  async snapshot(
    options: Omit<Call<Extract<Request, { op: 'snapshot' }>>, 'op'>,
    onProgress: (done: number, total: number) => void,
  ): Promise<SnapshotResult> {
    return this.#call({ op: 'snapshot', ...options }, snapshotResultSchema, { onProgress });
  }

  /** Resolves when the machine has ended, or after as many epochs as were asked for. */
  async dirty(
    options: Omit<Call<Extract<Request, { op: 'dirty' }>>, 'op'>,
    onEpoch: (epoch: EpochSummary) => void,
  ): Promise<{ epochs: number }> {
    return this.#call({ op: 'dirty', ...options }, dirtyResultSchema, { onEpoch });
  }

  close(): void {
    this.#socket.destroy();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** Fails the connection when the host process answers nothing any more. */
  #watchFor(name: string, silenceMs: number): NodeJS.Timeout {
    const every = silenceMs / QUESTIONS;
    let asked = false;
    let last = performance.now();
    const watch = setInterval(() => {
      const now = performance.now();
      // This process may have been stopped itself, or may not want to read.
      if (now - last > 2 * every || this.#socket.isPaused()) this.#heard = now;
      last = now;
      if (now - this.#heard >= silenceMs) return this.#fail(silent(name, silenceMs));
      if (asked) return;
      asked = true;
      const answered = (): void => {
        asked = false;
      };
      this.#request({ op: 'status' }).then(answered, answered);
    }, every);
    return watch.unref();
  }

  async #call<T extends z.ZodType>(
    call: Call,
    schema: T,
    listeners?: Listeners,
  ): Promise<z.infer<T>> {
    return checkMessage(schema, await this.#request(call, listeners));
  }

  #request(call: Call, listeners?: Listeners): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#failure) return reject(this.#failure);
      const id = this.#nextId++;
      this.#pending.set(id, { resolve, reject, ...listeners });
      this.#socket.write(`${JSON.stringify({ id, ...call })}\n`);
    });
  }

  #take(reply: Reply): void {
    switch (reply.kind) {
      case 'output':
        if (!this.output.push(Buffer.from(reply.data, 'base64'))) this.#socket.pause();
        return;
      case 'stopped':
        this.#settle?.resolve(reply.stop);
        this.output.push(null);
        return;
      case 'progress':
        this.#pending.get(reply.id)?.onProgress?.(reply.done, reply.total);
        return;
      case 'epoch':
        this.#pending.get(reply.id)?.onEpoch?.(reply.epoch);
        return;
      case 'result':
        this.#forget(reply.id)?.resolve(reply.result);
        return;
      case 'error':
        if (reply.id === undefined) this.#fail(unpackError(reply.error));
        else this.#forget(reply.id)?.reject(unpackError(reply.error));
    }
  }

  #forget(id: number): Pending | undefined {
    const pending = this.#pending.get(id);
    this.#pending.delete(id);
    return pending;
  }

  /** The connection is over; only the first reason counts. */
  #fail(error: Error): void {
    if (this.#failure) return;
    this.#failure = error;
    clearInterval(this.#watch);
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
    this.#settle?.reject(error);
    if (!this.output.readableEnded) this.output.push(null);
    this.#socket.destroy();
  }
}

function silent(name: string, ms: number): KvmsnapError {
  return new KvmsnapError(
    'ERR_CONTROL',
    `the host process of ${name} has not answered for ${ms / 1000} s: it hangs, or was stopped. ` +
      `\`kvmsnap stop --kill ${name}\` ends it`,
  );
}

function lost(name: string, cause?: Error): KvmsnapError {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code;
  return new KvmsnapError(
    'ERR_CONTROL',
    `the connection to the host process of ${name} ${code ? `failed: ${code}` : 'was lost'}. ` +
      `Its log says more; \`kvmsnap stop --kill ${name}\` ends it`,
    cause ? { cause } : {},
  );
}
