/** Starting the host process of a named machine. */
import { spawn } from 'node:child_process';
import { closeSync, constants, openSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { KvmsnapError } from '../../errors.js';
import type { LaunchAnswer, LaunchRequest } from './host.js';
import { unpackError } from './protocol.js';
import { machineFiles, runtimeDirectory } from './runtime-dir.js';

const HOST_MAIN = fileURLToPath(new URL('../host-main.js', import.meta.url));
const LOG_TAIL = 500;

/** Resolves with its pid once the machine is made, not started, and answers on its socket. */
export async function launchMachine(request: LaunchRequest): Promise<number> {
  const { log } = machineFiles(runtimeDirectory(), request.name);
  // Appended to: another machine may have the name, and this one be refused.
  const flags = constants.O_CREAT | constants.O_APPEND | constants.O_WRONLY | constants.O_NOFOLLOW;
  const logFd = openSync(log, flags, 0o600);
  const child = spawn(process.execPath, [HOST_MAIN], {
    detached: true,
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
