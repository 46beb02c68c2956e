/** Starting the host process of a named machine. */
import { spawn } from 'node:child_process';
import { closeSync, constants, openSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { KvmsnapError } from '../../errors.js';
import { nativeBinding } from '../../native/load.js';
import type { LaunchAnswer, LaunchRequest } from './host.js';
import { unpackError } from './protocol.js';
import { machineFiles, runtimeDirectory } from './runtime-dir.js';

const HOST_MAIN = fileURLToPath(new URL('../host-main.js', import.meta.url));
const LOG_TAIL = 500;

/** What a host process needs of its starter's environment. Whatever else is there may be a secret. */
const ALLOWED = [
  // Where sockets, records and logs are.
  'XDG_RUNTIME_DIR',
  'TMPDIR',
  // Where Node itself may need it to start.
  'LD_LIBRARY_PATH',
];
/** What developers need besides for an addon with sanitizers. */
const ALLOWED_WITH_ADDON = ['KVMSNAP_ADDON', 'LD_PRELOAD', 'ASAN_OPTIONS', 'UBSAN_OPTIONS'];

export function hostEnvironment(environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const names = environment.KVMSNAP_ADDON ? [...ALLOWED, ...ALLOWED_WITH_ADDON] : ALLOWED;
  return Object.fromEntries(
    names
      .filter((name) => environment[name] !== undefined)
      .map((name) => [name, environment[name]]),
  );
}

/** Resolves with its pid once the machine is made, not started, and answers on its socket. */
export async function launchMachine(request: LaunchRequest): Promise<number> {
  const { log } = machineFiles(runtimeDirectory(), request.name);
  // Appended to: another machine may have the name, and this one be refused.
  const flags = constants.O_CREAT | constants.O_APPEND | constants.O_WRONLY | constants.O_NOFOLLOW;
  const logFd = openSync(log, flags, 0o600);
  // What this process gives up, the host process never has.
  nativeBinding().sealProcess();
  const child = spawn(process.execPath, [HOST_MAIN], {
    detached: true,
    env: hostEnvironment(process.env),
    stdio: ['ignore', logFd, logFd, 'ipc'],
  });
  closeSync(logFd);
  const answer = await new Promise<LaunchAnswer>((resolve, reject) => {
    child.once('error', reject);
    child.once('message', (message) => resolve(message as LaunchAnswer));
    child.once('exit', (code, signal) => {
      reject(
        new KvmsnapError(
          'ERR_CONTROL',
          `the host process of ${request.name} ended (${signal ?? code}) before the machine was ` +
            `there; its log ${log} ends with: ${tail(log)}`,
        ),
      );
    });
    child.send(request);
  });
  if (child.connected) child.disconnect();
  child.unref();
  if (!answer.ok) throw unpackError(answer.error);
  return answer.pid;
}

function tail(path: string): string {
  try {
    return readFileSync(path, 'utf8').slice(-LOG_TAIL).trim() || 'nothing';
  } catch {
    return 'nothing';
  }
}
