/** Where sockets, records and logs of named machines lie: a directory of the user's own. */
import { lstatSync, mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { KvmsnapError } from '../../errors.js';
import { errnoCode } from '../../snapshot/failures.js';

/** `sockaddr_un.sun_path` without its NUL (unix(7)). */
const MAX_SOCKET_PATH = 107;

/** $XDG_RUNTIME_DIR/kvmsnap, else /run/user/UID/kvmsnap, else kvmsnap-UID in the temporary one. */
function location(): string {
  const uid = process.getuid?.() ?? 0;
  const xdg = process.env.XDG_RUNTIME_DIR;
  if (xdg?.startsWith('/')) return join(xdg, 'kvmsnap');
  const perUser = `/run/user/${uid}`;
  if (isOwnDirectory(perUser, uid)) return join(perUser, 'kvmsnap');
  return join(tmpdir(), `kvmsnap-${uid}`);
}

function isOwnDirectory(path: string, uid: number): boolean {
  try {
    const stats = lstatSync(path);
    return stats.isDirectory() && stats.uid === uid;
  } catch {
    return false;
  }
}

/**
 * The directory, made with mode 0700 if it is not there. `ERR_CONTROL` when it is a link, another
 * user's, or open to others: whoever may write there could pose as a machine.
 */
export function runtimeDirectory(): string {
  const path = location();
  try {
    mkdirSync(path, { mode: 0o700 });
  } catch (cause) {
    if (errnoCode(cause) !== 'EEXIST') {
      throw new KvmsnapError(
        'ERR_CONTROL',
        `the runtime directory ${path} cannot be made: ${errnoCode(cause)}. Set XDG_RUNTIME_DIR ` +
          'to a directory of your own',
        { cause },
      );
    }
  }
  const stats = lstatSync(path);
  const uid = process.getuid?.() ?? 0;
  if (!stats.isDirectory() || stats.uid !== uid || (stats.mode & 0o077) !== 0) {
    throw new KvmsnapError(
      'ERR_CONTROL',
      `${path} must be a directory of user ${uid} with mode 0700: remove it, or set ` +
        'XDG_RUNTIME_DIR to a directory of your own',
    );
  }
  return path;
}

export interface MachineFiles {
  socket: string;
  /** Who hosts the machine: see registry.ts. */
  record: string;
  log: string;
}

export function machineFiles(directory: string, name: string): MachineFiles {
  const socket = join(directory, `${name}.sock`);
  if (Buffer.byteLength(socket) > MAX_SOCKET_PATH) {
    throw new KvmsnapError(
      'ERR_CONTROL',
      `the socket path ${socket} is longer than ${MAX_SOCKET_PATH} bytes: use a shorter name, or ` +
        'a shorter XDG_RUNTIME_DIR',
    );
  }
  return { socket, record: join(directory, `${name}.json`), log: join(directory, `${name}.log`) };
}
