/** The host process's end of the control socket. Nothing that a client does ends the machine but `stop`. */
import { chmodSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { Connection } from './connection.js';
import type { HostedMachine } from './hosted.js';

const MAX_CONNECTIONS = 64;

export class ControlServer {
  readonly #machine: HostedMachine;
  readonly #server: Server;
  readonly #connections = new Set<Connection>();

  private constructor(machine: HostedMachine, server: Server) {
    this.#machine = machine;
    this.#server = server;
    server.on('connection', (socket) => this.#accept(socket));
  }

  /** Listens at a path in the runtime directory, for this user only. */
  static async listen(machine: HostedMachine, path: string): Promise<ControlServer> {
    const server = createServer();
    const control = new ControlServer(machine, server);
    // The directory keeps others out already; the mode says so once more, from the first instant.
    const before = process.umask(0o177);
    try {
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject);
        server.listen(path, resolve);
      });
    } finally {
      process.umask(before);
    }
    chmodSync(path, 0o600);
    return control;
  }

  /** Tells everyone that the machine is gone, and hangs up. */
  async close(): Promise<void> {
    this.#server.close();
    const stop = await this.#machine.ended;
    await Promise.all([...this.#connections].map((connection) => connection.finish(stop)));
  }

  /** Drops, among those that want least, the one that was heard of longest ago. */
  #dropLeastBusy(): void {
    const [least] = [...this.#connections].sort((a, b) => a.need - b.need || a.heard - b.heard);
    if (least === undefined) return;
    this.#connections.delete(least);
    least.drop();
  }

  #accept(socket: Socket): void {
    const connection = new Connection(socket, this.#machine);
    // Whoever comes gets in: those who only sit there make room.
    while (this.#connections.size >= MAX_CONNECTIONS) this.#dropLeastBusy();
    this.#connections.add(connection);
    socket.once('close', () => this.#connections.delete(connection));
  }
}
