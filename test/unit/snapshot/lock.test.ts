import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chownSync,
  linkSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { withLock } from '../../../lib/snapshot/lock.js';
import { lockHolder } from '../../../lib/snapshot/lock-holder.js';
import { newOwnerToken, ownerPid, ownerStatus } from '../../../lib/snapshot/owner.js';
import { SnapshotStore } from '../../../lib/snapshot/store.js';
import { Workspace } from '../../../lib/snapshot/workspace.js';
import { compile, startCommitter } from './compiled.js';
import { scratch } from './scratch.js';

let compiled: string;
beforeAll(() => {
  compiled = compile();
});

const children: ChildProcess[] = [];
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

async function newStore(): Promise<string> {
  const path = join(scratch(), 'store');
  await SnapshotStore.open(path, { create: true, durable: false });
  return path;
}

const lockOf = (store: string): string => join(store, '.kvmsnap', 'lock');

/** Takes the lock without waiting for anybody. */
async function takeAtOnce(store: string): Promise<void> {
  const workspace = new Workspace(store);
  await withLock(workspace, async () => undefined, { waitMs: 0 });
  await workspace.remove();
}

/** A process that takes the lock and keeps it, and a parent that never reaps it. */
async function startHolder(store: string): Promise<{ token: string; pid: number }> {
  const script = `
    const { withLock } = await import('${compiled}/lib/snapshot/lock.js');
    const { Workspace } = await import('${compiled}/lib/snapshot/workspace.js');
    const workspace = new Workspace('${store}');
    await withLock(workspace, () => {
      console.log(workspace.token);
      return new Promise(() => setInterval(() => {}, 1000));
    });`;
  const parent = spawn(
    'sh',
    ['-c', '"$0" --input-type=module -e "$1" & exec sleep 1000', process.execPath, script],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  children.push(parent);
  const [line] = await once(parent.stdout as NodeJS.ReadableStream, 'data');
  const token = String(line).trim();
  return { token, pid: Number(ownerPid(token)) };
}

/** Kills a process, and waits until the kernel has made it the zombie that nobody reaps. */
async function killUnreaped(pid: number): Promise<void> {
  process.kill(pid, 'SIGKILL');
  await expect
    .poll(() => readFileSync(`/proc/${pid}/stat`, 'latin1'), { timeout: 30_000 })
    .toMatch(/\) Z /);
}

describe('a zombie', () => {
  it('is dead, and its lock is taken at once', async () => {
    const store = await newStore();
    const { token, pid } = await startHolder(store);
    expect(ownerStatus(token)).toBe('alive');
    await expect(takeAtOnce(store)).rejects.toMatchObject({ code: 'ERR_STORE' });
    await killUnreaped(pid);
    expect(ownerStatus(token)).toBe('dead');
    await takeAtOnce(store);
    await SnapshotStore.open(store);
    expect(readdirSync(join(store, '.kvmsnap', 'tmp'))).not.toContain(token);
  });
});

/** The token of a thread of this process, which lives, in which `change` replaces fields. */
const forge = (change: Record<number, string> = {}): string =>
  Object.entries(change)
    .reduce((fields, [at, text]) => fields.with(Number(at), text), newOwnerToken().split('.'))
    .join('.');

const NAMESPACE = 1;
const future = new Date('2100-01-01');

/** What may stand in a store that was made or copied by anybody, and holds no lock. */
const FORGERIES: Record<string, (path: string, store: string) => void> = {
  'an empty file': (path) => writeFileSync(path, ''),
  'text that is no token': (path) => writeFileSync(path, 'hello'),
  'a large file': (path) => writeFileSync(path, forge().padEnd(1 << 20, 'x')),
  'a link to a file': (path, store) => {
    writeFileSync(join(store, '..', 'outside'), forge());
    symlinkSync('../../outside', path);
  },
  'a link to nothing': (path) => symlinkSync('nowhere', path),
  'a directory with files': (path) => {
    mkdirSync(join(path, 'a', 'b'), { recursive: true });
    writeFileSync(join(path, 'a', 'file'), 'x');
  },
  'a named pipe': (path) => {
    expect(spawnSync('mkfifo', [path]).status).toBe(0);
  },
  'a copy of the lock of a process that lives': (path) => writeFileSync(path, forge()),
  'a copy of a lock of another host, from the future': (path) => {
    writeFileSync(path, forge({ 0: 'ffffffff-0000' }));
    lutimesSync(path, future, future);
  },
  'a copy of a lock of another PID namespace': (path) => {
    writeFileSync(path, forge({ [NAMESPACE]: '1' }));
  },
  'a lock in the name of a process that lives and knows nothing of it': (path, store) => {
    const token = forge();
    mkdirSync(join(store, '.kvmsnap', 'tmp', token), { recursive: true });
    writeFileSync(join(store, '.kvmsnap', 'tmp', token, 'owner'), token);
    linkSync(join(store, '.kvmsnap', 'tmp', token, 'owner'), path);
  },
};

describe('what is no lock', () => {
  it.each(Object.keys(FORGERIES))('keeps nobody out: %s', async (name) => {
    const store = await newStore();
    const forgery = FORGERIES[name] as (path: string, store: string) => void;
    forgery(lockOf(store), store);
    await takeAtOnce(store);
    expect(readdirSync(join(store, '.kvmsnap'))).toEqual(['tmp']);
    // Nor in place of the right to break a lock.
    writeFileSync(lockOf(store), '');
    forgery(join(store, '.kvmsnap', 'break-garbage-0'), store);
    await takeAtOnce(store);
    expect(readdirSync(join(store, '.kvmsnap'))).toEqual(['tmp']);
  });

  it('is not followed: a file that a link names stays as it was', async () => {
    const store = await newStore();
    const outside = join(store, '..', 'precious');
    writeFileSync(outside, 'precious');
    const before = statSync(outside);
    symlinkSync('../../precious', lockOf(store));
    await takeAtOnce(store);
    expect(readFileSync(outside, 'utf8')).toBe('precious');
    expect(statSync(outside).mtimeMs).toBe(before.mtimeMs);
  });

  it('a socket keeps nobody out', async () => {
    const store = await newStore();
    const server = createServer();
    // Its path would be too long for some temporary directories.
    await new Promise<void>((resolve) => server.listen(join(store, 's'), resolve));
    linkSync(join(store, 's'), lockOf(store));
    await takeAtOnce(store);
    expect(readdirSync(join(store, '.kvmsnap'))).toEqual(['tmp']);
    server.close();
  });

  it.runIf(process.getuid?.() === 0)('a file of another user keeps nobody out', async () => {
    const store = await newStore();
    writeFileSync(lockOf(store), forge());
    chownSync(lockOf(store), 12_345, 12_345);
    await takeAtOnce(store);
    expect(readdirSync(join(store, '.kvmsnap'))).toEqual(['tmp']);
  });

  it('is broken by one of many processes at a time', { timeout: 120_000 }, async () => {
    const store = await newStore();
    const names = Object.keys(FORGERIES);
    for (const [round, name] of names.entries()) {
      if (round % 3 !== 0) continue;
      FORGERIES[name]?.(lockOf(store), store);
      const writers = ['a', 'b', 'c'].map((tag) =>
        startCommitter(compiled, store, `${round}${tag}`, 4),
      );
      expect(await Promise.all(writers.map(({ exited }) => exited))).toEqual([0, 0, 0]);
    }
    const tags = await (await SnapshotStore.open(store)).tags();
    expect(new Set(tags).size).toBe(Math.ceil(names.length / 3) * 3 * 4);
  });
});

describe('a lock of another host', () => {
  it('holds while it is refreshed, by the clock of the file system', async () => {
    const store = await newStore();
    const token = forge({ 0: 'ffffffff-0000' });
    const mine = join(store, '.kvmsnap', 'tmp', token);
    mkdirSync(mine, { recursive: true });
    writeFileSync(join(mine, 'owner'), token);
    linkSync(join(mine, 'owner'), lockOf(store));
    // The times that anybody can set do not count.
    lutimesSync(lockOf(store), future, future);
    const changed = statSync(lockOf(store)).ctimeMs;
    expect(lockHolder(store, lockOf(store), changed + 59_000)).toEqual({ token, gone: false });
    expect(lockHolder(store, lockOf(store), changed + 61_000)).toEqual({ token, gone: true });
  });
});
