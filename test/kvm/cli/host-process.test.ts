/** What the host process of a named machine has of whoever started it. */
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CommandLine, finish, MAIN } from './command.js';

let kvmsnap: CommandLine;
beforeEach(() => {
  kvmsnap = new CommandLine();
});
afterEach(() => kvmsnap.clean());

const RUN = ['run', '--guest', 'counter', '--no-irqchip', '--memory', '16M'];

/** Starts a machine from a shell that has left files open, and gives the pid of its host process. */
async function startCarelessly(): Promise<number> {
  writeFileSync(join(kvmsnap.directory, 'secret'), 'secret');
  const child = spawn(
    'bash',
    [
      '-c',
      'umask 000; ulimit -S -c unlimited; exec 100<secret 5>&100 3<secret 4<secret 9>>secret; exec "$0" "$@"',
      ...[process.execPath, MAIN, ...RUN, '--name', 'one', '--detach', '--json'],
    ],
    {
      cwd: kvmsnap.directory,
      env: {
        ...process.env,
        XDG_RUNTIME_DIR: kvmsnap.directory,
        AWS_SECRET_ACCESS_KEY: 'secret',
        NODE_OPTIONS: '--no-warnings',
      },
    },
  );
  const { code, stdout, stderr } = await finish(child);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  return JSON.parse(stdout).pid;
}

describe('the host process of a named machine', () => {
  it('has only the descriptors that it needs', async () => {
    const pid = await startCarelessly();
    const open = readdirSync(`/proc/${pid}/fd`).map((fd) => readlinkSync(`/proc/${pid}/fd/${fd}`));
    expect(open.filter((target) => target.includes('secret'))).toEqual([]);
    const known = /^(anon_inode:.*|socket:.*|pipe:.*|\/dev\/(null|kvm|userfaultfd)|\/memfd:.*)$/;
    const log = join(kvmsnap.directory, 'kvmsnap', 'one.log');
    // io_uring, epoll, events and pipes are Node's own.
    expect(open.filter((target) => !known.test(target) && target !== log)).toEqual([]);
  });

  it('has only variables of the list in its environment', async () => {
    const pid = await startCarelessly();
    const names = readFileSync(`/proc/${pid}/environ`, 'utf8')
      .split('\0')
      .filter(Boolean)
      .map((entry) => entry.split('=')[0] as string);
    const allowed = ['XDG_RUNTIME_DIR', 'TMPDIR', 'LD_LIBRARY_PATH'];
    // Of the channel over which its starter tells it what to make.
    const node = ['NODE_CHANNEL_FD', 'NODE_CHANNEL_SERIALIZATION_MODE'];
    const developers = ['KVMSNAP_ADDON', 'LD_PRELOAD', 'ASAN_OPTIONS', 'UBSAN_OPTIONS'];
    const expected = [...allowed, ...node, ...(process.env.KVMSNAP_ADDON ? developers : [])];
    expect(names).toContain('XDG_RUNTIME_DIR');
    expect(names.filter((name) => !expected.includes(name))).toEqual([]);
  });

  it('gains no privileges, leaves no core files, and makes files for its user only', async () => {
    const pid = await startCarelessly();
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      const status = readFileSync(`/proc/${pid}/task/${task}/status`, 'utf8');
      expect(status).toMatch(/^NoNewPrivs:\s+1$/m);
      expect(status).toMatch(/^Umask:\s+0077$/m);
    }
    // Not 0, with which the kernel still hands a dump to the program of a core_pattern.
    expect(readFileSync(`/proc/${pid}/limits`, 'utf8')).toMatch(
      /^Max core file size +[01] +[01] /m,
    );
    expect(readlinkSync(`/proc/${pid}/cwd`)).toBe('/');
  });
});
