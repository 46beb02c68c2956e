/**
 * Who holds a lock or a workspace: a token that names one thread of one process of one boot, so
 * that what the dead left behind can be told from what the living use. proc(5), namespaces(7).
 */
import { randomBytes } from 'node:crypto';
import { readFileSync, readlinkSync } from 'node:fs';
import { errnoCode } from './failures.js';

const TOKEN = /^([0-9a-f-]{1,64})\.(\d{1,20})\.(\d{1,10})\.(\d{1,10})\.(\d{1,20})\.[0-9a-f]{16}$/;

/** `dead` is certain. `unknown`: of another host, boot or PID namespace; only age can tell. */
export type OwnerStatus = 'alive' | 'dead' | 'unknown';

export const isOwnerToken = (text: string): boolean => TOKEN.test(text);

/** A new token of the calling thread. Safe as a file name. */
export function newOwnerToken(): string {
  // Worker threads end on their own: /proc/thread-self is PID/task/TID of the caller.
  const [pid, , tid] = readlinkSync('/proc/thread-self').split('/') as [string, string, string];
  const start = startTime(pid, tid) ?? '0';
  const unique = randomBytes(8).toString('hex');
  return [bootId(), pidNamespace(), pid, tid, start, unique].join('.');
}

export function ownerStatus(token: string): OwnerStatus {
  const match = TOKEN.exec(token);
  if (!match) return 'unknown';
  const [, boot, namespace, pid, tid, start] = match as unknown as string[];
  if (boot !== bootId() || namespace !== pidNamespace()) return 'unknown';
  try {
    process.kill(Number(pid), 0);
  } catch (error) {
    if (errnoCode(error) === 'ESRCH') return 'dead';
  }
  // Nothing of a process that /proc hides (hidepid) can be known but that it is there.
  if (startTime(pid as string, pid as string) === undefined) return 'alive';
  // A process id that was used again has another start time.
  return startTime(pid as string, tid as string) === start ? 'alive' : 'dead';
}

/** The process id in a token, for messages. */
export const ownerPid = (token: string): string => TOKEN.exec(token)?.[3] ?? '?';

function startTime(pid: string, tid: string): string | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/task/${tid}/stat`, 'latin1');
    // Field 22; the name in field 2 may hold anything, so count from its last parenthesis.
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return undefined;
  }
}

let boot: string | undefined;
const bootId = (): string => {
  boot ??= readFileSync('/proc/sys/kernel/random/boot_id', 'latin1').trim();
  return boot;
};

let namespace: string | undefined;
const pidNamespace = (): string => {
  namespace ??= readlinkSync('/proc/self/ns/pid').replace(/\D/g, '');
  return namespace;
};
