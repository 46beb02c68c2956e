// The Unix sockets between this process and QEMU. We listen, so that none is there too late.

import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const DRAIN_LIMIT_MS = 2000;

/** Listens at `path` for the one connection that QEMU makes there. */
async function listen(path) {
  const server = createServer();
  const connection = new Promise((resolve) => server.once('connection', resolve));
  await new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(path, resolve);
  });
  return { server, connection };
}

/**
 * One socket per entry of `handlers`, which is called with the socket when QEMU has connected.
 * `paths` tells QEMU where, `sockets` has those that are connected, `drained()` waits until all that
 * a QEMU which has ended wrote has come in.
 */
export async function openChannels(handlers) {
  // Not in the cache: the path of a Unix socket has at most 107 bytes.
  const directory = mkdtempSync(join(tmpdir(), 'kvmsnap-host-'));
  const paths = {};
  const sockets = {};
  const servers = [];
  const closed = [];
  const close = () => {
    for (const server of servers) server.close();
    for (const socket of Object.values(sockets)) socket.destroy();
    rmSync(directory, { recursive: true, force: true });
  };
  try {
    for (const [name, handle] of Object.entries(handlers)) {
      paths[name] = join(directory, name);
      const { server, connection } = await listen(paths[name]);
      servers.push(server);
      const ended = connection.then((socket) => {
        sockets[name] = socket;
        // QEMU resets the connection when it is killed.
        socket.on('error', () => {});
        handle(socket);
        return new Promise((resolve) => socket.once('close', resolve));
      });
      closed.push(ended);
    }
  } catch (error) {
    close();
    throw error;
  }
  const drained = () =>
    Promise.race([Promise.all(closed), delay(DRAIN_LIMIT_MS, undefined, { ref: false })]);
  return { paths, sockets, drained, close };
}
