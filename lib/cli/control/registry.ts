/**
 * Which machine has which name. A record names the process that hosts the machine; the name is free
 * when that process is gone, whatever files it left. Records change under a lock, so that of two
 * who want a name, or find it stale, one gets it.
 */
import { lstatSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { connect } from 'node:net';
import { z } from 'zod';
import { KvmsnapError } from '../../errors.js';
import { readSmallFile } from '../../snapshot/blobs.js';
import { errnoCode } from '../../snapshot/failures.js';
import { withLock } from '../../snapshot/lock.js';
import { isOwnerToken, newOwnerToken, ownerPid, ownerStatus } from '../../snapshot/owner.js';
import { sweepWorkspaces, Workspace } from '../../snapshot/workspace.js';
import { MACHINE_NAME } from '../values.js';
import { type MachineFiles, machineFiles, runtimeDirectory } from './runtime-dir.js';

const recordSchema = z.object({ owner: z.string().max(256).refine(isOwnerToken) });
const MAX_RECORD_BYTES = 4096;
const LOCK_WAIT_MS = 10_000;
/** A host process that has made no socket by then has ended. */
const STARTING_MS = 60_000;

/** A name that this process holds. */
export interface NameClaim {
  readonly socket: string;
  /** Gives the name back and removes its files but the log. Idempotent. */
  release(): Promise<void>;
}

/** Takes a name for the calling process. `ERR_MACHINE_NAME`: a living process has it. */
export async function claimName(name: string): Promise<NameClaim> {
  const directory = runtimeDirectory();
  const files = machineFiles(directory, name);
  const owner = newOwnerToken();
  await locked(directory, async (workspace) => {
    const holder = readOwner(directory, name);
    if (holder !== undefined && (await isAlive(holder, files))) {
      throw new KvmsnapError(
        'ERR_MACHINE_NAME',
        `a machine named ${name} is there already (process ${ownerPid(holder)}): choose another ` +
          `name, or stop it with \`kvmsnap stop ${name}\``,
      );
    }
    rmSync(files.socket, { recursive: true, force: true });
    rmSync(files.record, { recursive: true, force: true });
    const written = workspace.file('record');
    writeFileSync(written, JSON.stringify({ owner }), { mode: 0o600 });
    renameSync(written, files.record);
  });
  return { socket: files.socket, release: () => forget(directory, name, owner) };
}

export interface FoundMachine {
  socket: string;
  /** Of the host process; `undefined` where it is of another PID namespace. */
  pid: number | undefined;
}

/** The process that hosts a machine. `ERR_MACHINE_NAME`: none; what a dead one left is removed. */
export async function findMachine(name: string): Promise<FoundMachine> {
  const directory = runtimeDirectory();
  const owner = readOwner(directory, name);
  const files = machineFiles(directory, name);
  if (owner !== undefined && (await isAlive(owner, files))) {
    const pid = ownerStatus(owner) === 'alive' ? Number(ownerPid(owner)) : undefined;
    return { pid, socket: files.socket };
  }
  if (owner !== undefined) await forget(directory, name, owner);
  throw new KvmsnapError('ERR_MACHINE_NAME', `no machine is named ${name}`);
}

/** Names of all machines whose processes live, sorted. */
export async function machineNames(): Promise<string[]> {
  const directory = runtimeDirectory();
  sweepWorkspaces(directory);
  const names: string[] = [];
  for (const file of readdirSync(directory)) {
    const name = file.endsWith('.json') ? file.slice(0, -'.json'.length) : '';
    if (!MACHINE_NAME.test(name)) continue;
    const owner = readOwner(directory, name);
    if (owner === undefined) continue;
    if (await isAlive(owner, machineFiles(directory, name))) names.push(name);
    else await forget(directory, name, owner);
  }
  return names.sort();
}

/**
 * A process of another boot is dead: the directory is local. Of another PID namespace, as of a container
 * that was started anew on the same directory, only its socket says whether it lives.
 */
async function isAlive(owner: string, files: MachineFiles): Promise<boolean> {
  const status = ownerStatus(owner);
  if (status !== 'unknown') return status === 'alive';
  if (bootOf(owner) !== bootOf(newOwnerToken())) return false;
  return (await isListening(files.socket)) || isYoung(files.record);
}

/** Whether any process has the socket; all but a refusal counts as one that has. */
function isListening(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    const settle = (listening: boolean): void => {
      socket.destroy();
      resolve(listening);
    };
    socket.once('connect', () => settle(true));
    socket.once('error', (error) => {
      settle(!['ECONNREFUSED', 'ENOENT', 'ENOTSOCK'].includes(errnoCode(error) ?? ''));
    });
  });
}

/** A host process takes the name first, and listens once its machine is made. */
function isYoung(record: string): boolean {
  const stats = lstatSync(record, { throwIfNoEntry: false });
  return stats !== undefined && Date.now() - stats.ctimeMs < STARTING_MS;
}

const bootOf = (owner: string): string | undefined => owner.split('.')[0];

async function forget(directory: string, name: string, owner: string): Promise<void> {
  await locked(directory, async () => {
    // Somebody else may have the name by now.
    if (readOwner(directory, name) !== owner) return;
    const files = machineFiles(directory, name);
    rmSync(files.socket, { recursive: true, force: true });
    rmSync(files.record, { recursive: true, force: true });
  });
}

async function locked(
  directory: string,
  work: (workspace: Workspace) => Promise<void>,
): Promise<void> {
  const workspace = new Workspace(directory);
  try {
    await withLock(workspace, () => work(workspace), { waitMs: LOCK_WAIT_MS });
  } finally {
    await workspace.remove();
  }
}

/** The token in a record; what is no record, or was damaged, counts as none. */
function readOwner(directory: string, name: string): string | undefined {
  const { record } = machineFiles(directory, name);
  try {
    const bytes = readSmallFile(record, MAX_RECORD_BYTES, 'no record');
    return recordSchema.parse(JSON.parse(bytes.toString('utf8'))).owner;
  } catch (error) {
    if (error instanceof SyntaxError || error instanceof z.ZodError) return undefined;
    const code = errnoCode(error) ?? '';
    if (['ERR_SNAPSHOT_MISSING', 'ERR_SNAPSHOT_FORMAT'].includes(code)) return undefined;
    throw error;
  }
}
