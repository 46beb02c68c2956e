import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { claimName, findMachine, machineNames } from '../../../lib/cli/control/registry.js';
import { machineFiles, runtimeDirectory } from '../../../lib/cli/control/runtime-dir.js';
import { newOwnerToken } from '../../../lib/snapshot/owner.js';

let base: string;
const before = process.env.XDG_RUNTIME_DIR;

beforeEach(() => {
  base = mkdtempSync(join(tmpdir(), 'kvmsnap-registry-'));
  process.env.XDG_RUNTIME_DIR = base;
});

afterEach(() => {
  if (before === undefined) delete process.env.XDG_RUNTIME_DIR;
  else process.env.XDG_RUNTIME_DIR = before;
  rmSync(base, { recursive: true });
});

/** A token of a process that is gone. */
function deadToken(): string {
  const { pid } = spawnSync(process.execPath, ['-e', '0']);
  const parts = newOwnerToken().split('.');
  return [parts[0], parts[1], pid, pid, parts[4], parts[5]].join('.');
}

function leave(name: string, owner: string): void {
  const files = machineFiles(runtimeDirectory(), name);
  writeFileSync(files.record, JSON.stringify({ owner }));
  writeFileSync(files.socket, '');
}

describe('names of machines', () => {
  it('go to one of many who want the same', async () => {
    const claims = await Promise.allSettled(Array.from({ length: 8 }, () => claimName('one')));
    const won = claims.filter(({ status }) => status === 'fulfilled');
    expect(won).toHaveLength(1);
    for (const claim of claims) {
      if (claim.status === 'rejected') expect(claim.reason.code).toBe('ERR_MACHINE_NAME');
    }
    expect(await machineNames()).toEqual(['one']);
    expect(await findMachine('one')).toMatchObject({ pid: process.pid });
  });

  it('are free again when they are given back', async () => {
    const claim = await claimName('one');
    await claim.release();
    await claim.release();
    expect(await machineNames()).toEqual([]);
    await (await claimName('one')).release();
  });

  it('are taken over from the dead by one of many', async () => {
    leave('stale', deadToken());
    const claims = await Promise.allSettled(Array.from({ length: 8 }, () => claimName('stale')));
    expect(claims.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
  });

  it('of the dead and of another boot are forgotten, with their files', async () => {
    leave('dead', deadToken());
    leave('other-boot', newOwnerToken().replace(/^[^.]+/, 'ffffffff-0000'));
    expect(await machineNames()).toEqual([]);
    await expect(findMachine('dead')).rejects.toMatchObject({ code: 'ERR_MACHINE_NAME' });
    expect(readdirSync(runtimeDirectory()).filter((name) => !name.startsWith('.'))).toEqual([]);
  });

  it('of a zombie are free, as of any other that is dead', async () => {
    // Nobody reaps what it has started: `sleep` does not know of it.
    const parent = spawn('sh', ['-c', 'sleep 1000 & echo $!; exec sleep 1000']);
    try {
      const [line] = await once(parent.stdout, 'data');
      const pid = String(line).trim();
      const start = (await readFile(`/proc/${pid}/stat`, 'latin1')).split(') ')[1]?.split(' ')[19];
      const [boot, namespace, , , , unique] = newOwnerToken().split('.');
      leave('undead', [boot, namespace, pid, pid, start, unique].join('.'));
      expect(await machineNames()).toEqual(['undead']);
      process.kill(Number(pid), 'SIGKILL');
      await expect
        .poll(() => readFile(`/proc/${pid}/stat`, 'latin1'), { timeout: 30_000 })
        .toMatch(/\) Z /);
      await expect(findMachine('undead')).rejects.toMatchObject({ code: 'ERR_MACHINE_NAME' });
      expect(await machineNames()).toEqual([]);
    } finally {
      parent.kill('SIGKILL');
    }
  });

  it('of another PID namespace are free when nobody listens any more', async () => {
    const elsewhere = newOwnerToken().split('.').with(1, '1').join('.');
    const files = machineFiles(runtimeDirectory(), 'elsewhere');
    writeFileSync(files.record, JSON.stringify({ owner: elsewhere }));
    // Its machine may be in the making.
    expect(await machineNames()).toEqual(['elsewhere']);
    vi.spyOn(Date, 'now').mockReturnValue(Date.now() + 61_000);
    try {
      const server = createServer();
      await new Promise<void>((resolve) => server.listen(files.socket, resolve));
      expect(await machineNames()).toEqual(['elsewhere']);
      expect(await findMachine('elsewhere')).toEqual({ socket: files.socket, pid: undefined });
      await new Promise((resolve) => server.close(resolve));
      writeFileSync(files.socket, '');
      expect(await machineNames()).toEqual([]);
    } finally {
      vi.restoreAllMocks();
    }
  });

  it('survive things that are no files', async () => {
    const { record, socket } = machineFiles(runtimeDirectory(), 'odd');
    for (const make of [
      () => mkdirSync(join(record, 'full'), { recursive: true }),
      () => symlinkSync('/dev/zero', record),
      () => expect(spawnSync('mkfifo', [record]).status).toBe(0),
      () => mkdirSync(socket),
    ]) {
      make();
      expect(await machineNames()).not.toContain('odd');
      await (await claimName('odd')).release();
    }
  });

  it('survive a record that is no record', async () => {
    for (const [name, text] of [
      ['empty', ''],
      ['text', 'hello'],
      ['forged', '{"owner":"1.2.3"}'],
      ['large', `{"owner":"${'x'.repeat(10_000)}"}`],
    ] as const) {
      writeFileSync(machineFiles(runtimeDirectory(), name).record, text);
      expect(await machineNames()).not.toContain(name);
      await (await claimName(name)).release();
    }
  });
});

describe('the runtime directory', () => {
  it('is made for its owner only', () => {
    expect(runtimeDirectory()).toBe(join(base, 'kvmsnap'));
    expect(existsSync(join(base, 'kvmsnap'))).toBe(true);
  });

  it('is refused when others may look into it', () => {
    mkdirSync(join(base, 'kvmsnap'));
    chmodSync(join(base, 'kvmsnap'), 0o755);
    expect(() => runtimeDirectory()).toThrow(/mode 0700/);
  });

  it('is refused when it is a link', () => {
    mkdirSync(join(base, 'elsewhere'), { mode: 0o700 });
    symlinkSync(join(base, 'elsewhere'), join(base, 'kvmsnap'));
    expect(() => runtimeDirectory()).toThrow(/must be a directory/);
  });

  it('says so when a socket path would be too long', () => {
    expect(() => machineFiles(`/${'x'.repeat(100)}`, 'name')).toThrow(/107 bytes/);
  });
});
