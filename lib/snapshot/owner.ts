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
  const start = threadStat(pid, tid)?.start ?? '0';
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
  if (threadStat(pid as string, pid as string) === undefined) return 'alive';
  const thread = threadStat(pid as string, tid as string);
  // A zombie has ended; where nobody reaps it (process 1 of many containers), it stays for good.
  if (thread === undefined || ENDED.test(thread.state)) return 'dead';
  // A process id that was used again has another start time.
  return thread.start === start ? 'alive' : 'dead';
}

/** States of proc(5) in which a thread runs no more: zombie, dead. */
const ENDED = /^[ZXx]$/;

/** The process id in a token, for messages. */
export const ownerPid = (token: string): string => TOKEN.exec(token)?.[3] ?? '?';

function threadStat(pid: string, tid: string): { state: string; start: string } | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/task/${tid}/stat`, 'latin1');
    // Fields 3 and 22; the name in field 2 may hold anything, so count from its last parenthesis.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return { state: fields[0] ?? '', start: fields[19] ?? '' };
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
