/** One client of a host process. */
import { once } from 'node:events';
import type { Socket } from 'node:net';
import { KvmsnapError } from '../../errors.js';
import type { Stop } from '../stop.js';
import type { HostedMachine, Watcher } from './hosted.js';
import { LineReader, MAX_CONSOLE_CHUNK, MAX_REQUEST_LINE } from './lines.js';
import { checkMessage, packError, type Reply, type Request, requestSchema } from './protocol.js';

/** Requests of one client that are not answered yet. */
const MAX_PENDING = 16;
/** A client that watches and takes nothing for so long is cut off, so that the guest can go on. */
const STALL_MS = 10_000;
const PROGRESS_MS = 100;
/** A client has so long for its first request, for the rest of one that it has begun, and between two. */
const IDLE_MS = 30_000;
/** Bytes that a client has asked for and does not take, beyond which it is cut off. */
const MAX_UNREAD = 8 * 1024 * 1024;

export class Connection implements Watcher {
  readonly #socket: Socket;
  readonly #machine: HostedMachine;
  readonly #gone = new AbortController();
  #pending = 0;
  #attached = false;
  #stall: NodeJS.Timeout | undefined;
  #idle: NodeJS.Timeout | undefined;
  #heard = performance.now();

  constructor(socket: Socket, machine: HostedMachine, idleMs = IDLE_MS) {
    this.#socket = socket;
    this.#machine = machine;
    const reader = new LineReader(MAX_REQUEST_LINE);
    this.#idle = setInterval(() => {
      if (this.need === 0 && performance.now() - this.#heard >= idleMs) this.drop();
    }, idleMs / 4);
    socket.on('data', (chunk) => {
      try {
        for (const message of reader.push(chunk)) {
          this.#handle(checkMessage(requestSchema, message));
        }
      } catch (error) {
        this.#refuse(error);
      }
    });
    socket.on('drain', () => this.#drained());
    // A client that dies is no concern of the machine's.
    socket.on('error', () => socket.destroy());
    socket.once('close', () => {
      clearTimeout(this.#stall);
      clearInterval(this.#idle);
      this.#gone.abort();
      machine.unwatch(this);
    });
  }

  /** How much is lost when it is dropped: 0 nothing, 1 a console, 2 an answer that is awaited. */
  get need(): number {
    if (this.#pending > 0) return 2;
    return this.#attached ? 1 : 0;
  }

  /** When its last whole request came, or it. Milliseconds. */
  get heard(): number {
    return this.#heard;
  }

  drop(): void {
    this.#socket.destroy();
  }

  output(bytes: Buffer): boolean {
    let taken = true;
    for (let at = 0; at < bytes.length; at += MAX_CONSOLE_CHUNK) {
      const data = bytes.subarray(at, at + MAX_CONSOLE_CHUNK).toString('base64');
      taken = this.#send({ kind: 'output', data });
    }
    if (!taken) this.#stall ??= setTimeout(() => this.#socket.destroy(), STALL_MS);
    return taken || this.#socket.destroyed;
  }

  /** Says that the machine is gone, and closes once that was taken. */
  finish(stop: Stop): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.#socket.destroy(), STALL_MS);
      this.#socket.once('close', () => {
        clearTimeout(timer);
        resolve();
      });
      if (this.#socket.destroyed) resolve();
      this.#send({ kind: 'stopped', stop });
      this.#socket.destroySoon();
    });
  }

  #handle(request: Request): void {
    this.#heard = performance.now();
    if (this.#pending >= MAX_PENDING) {
      throw new KvmsnapError(
        'ERR_CONTROL',
        `more than ${MAX_PENDING} requests wait for answers on one connection`,
      );
    }
    this.#pending += 1;
    this.#answer(request)
      .then(
        (result) => this.#send({ kind: 'result', id: request.id, result }),
        (error) => this.#send({ kind: 'error', id: request.id, error: packError(error) }),
      )
      .finally(() => {
        this.#pending -= 1;
      });
  }

  async #answer(request: Request): Promise<unknown> {
    const machine = this.#machine;
    switch (request.op) {
      case 'status':
        return machine.info();
      case 'pause':
        return (await machine.vm.pause()) ?? null;
      case 'resume':
        return (await machine.vm.resume()) ?? null;
      case 'stop':
        return (await machine.stop(request.kill)) ?? null;
      case 'input':
        return (await machine.input(Buffer.from(request.data, 'base64'))) ?? null;
      case 'attach':
        if (!this.#attached) machine.watch(this);
        this.#attached = true;
        return null;
      case 'snapshot':
        return machine.snapshot(request, this.#progress(request.id), this.#gone.signal);
      case 'dirty':
        return this.#dirty(request);
    }
  }

  async #dirty({ id, ...request }: Extract<Request, { op: 'dirty' }>): Promise<{ epochs: number }> {
    const { signal } = this.#gone;
    let epochs = 0;
    for await (const epoch of this.#machine.dirty(request, signal)) {
      const taken = this.#send({ kind: 'epoch', id, epoch });
      if (++epochs === request.count) break;
      // The next harvest waits for a slow client; one that has left fires the signal.
      if (!taken) await once(this.#socket, 'drain', { signal }).catch(() => undefined);
    }
    return { epochs };
  }

  #progress(id: number): (done: number, total: number) => void {
    let last = 0;
    return (done, total) => {
      const now = performance.now();
      if (now - last < PROGRESS_MS && done < total) return;
      last = now;
      this.#send({ kind: 'progress', id, done, total });
    };
  }

  #refuse(error: unknown): void {
    this.#send({ kind: 'error', error: packError(error) });
    this.#socket.removeAllListeners('data');
    this.#socket.destroySoon();
  }

  #drained(): void {
    clearTimeout(this.#stall);
    this.#stall = undefined;
    this.#machine.drained(this);
  }

  #send(reply: Reply): boolean {
    if (this.#socket.destroyed || this.#socket.writableEnded) return true;
    if (this.#socket.writableLength > MAX_UNREAD) this.drop();
    return this.#socket.write(`${JSON.stringify(reply)}\n`);
  }
}
