import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { HANG_MS } from '../support/host.js';
import { CommandLine, finish, printed } from './command.js';

let kvmsnap: CommandLine;
beforeEach(() => {
  kvmsnap = new CommandLine();
});
afterEach(() => kvmsnap.clean());

const COUNTER = ['run', '--guest', 'counter', '--no-irqchip', '--memory', '64M'];
const runtime = (): string => join(kvmsnap.directory, 'kvmsnap');
const filesOf = (name: string): string[] =>
  readdirSync(runtime())
    .filter((file) => file.startsWith(`${name}.`))
    .sort();

describe('a named machine', () => {
  it('lives through run, pause, snapshot, resume, stop and restore', async () => {
    const started = await kvmsnap.json(...COUNTER, '--name', 'one', '--detach');
    expect(started).toMatchObject({ name: 'one', status: 'running' });
    expect(await kvmsnap.json('ps')).toMatchObject([
      { name: 'one', status: 'running', pid: started.pid, vcpus: 1, memory: 64 * 2 ** 20 },
    ]);
    expect(statSync(join(runtime(), 'one.sock')).mode & 0o777).toBe(0o600);

    const taken = await kvmsnap.json('snapshot', 'one', '--store', kvmsnap.store, '--tag', 'warm');
    expect(taken).toMatchObject({ tag: 'warm', pages: expect.any(Number) });
    expect(taken.pauseMs).toBeGreaterThan(0);
    expect(await kvmsnap.json('pause', 'one')).toEqual({ name: 'one', status: 'paused' });
    await kvmsnap.json('snapshot', 'one', '--store', kvmsnap.store, '--tag', 'still');
    expect((await kvmsnap.json('ps'))[0].status).toBe('paused');
    expect(await kvmsnap.json('resume', 'one')).toEqual({ name: 'one', status: 'running' });

    expect((await kvmsnap.run('stop', 'one')).code).toBe(0);
    expect(await kvmsnap.json('ps')).toEqual([]);
    expect(filesOf('one')).toEqual(['one.log']);
    expect(readFileSync(join(runtime(), 'one.log'), 'utf8')).toMatch(/ended: closed/);

    const list = await kvmsnap.json('list', '--store', kvmsnap.store);
    expect(list.map(({ tag }: { tag: string }) => tag)).toEqual(['warm', 'still']);
    await kvmsnap.json('verify', 'warm', '--store', kvmsnap.store);
    const copy = ['restore', 'warm', '--store', kvmsnap.store, '--name', 'two', '-d', '--paused'];
    expect(await kvmsnap.json(...copy)).toMatchObject({ name: 'two', status: 'paused' });
    expect(await kvmsnap.json('resume', 'two')).toMatchObject({ status: 'running' });
    const inspected = await kvmsnap.json('inspect', 'warm', '--store', kvmsnap.store);
    expect(BigInt(inspected.state.vcpus[0].sections.regs.rip)).toBeGreaterThanOrEqual(0x100000n);
    expect((await kvmsnap.run('stop', '--kill', 'two')).code).toBe(0);

    await kvmsnap.json('delete', 'still', '--store', kvmsnap.store);
    const freed = await kvmsnap.json('gc', '--store', kvmsnap.store, '--grace', '0');
    expect(freed.blobs).toBeGreaterThan(0);
    await kvmsnap.json('verify', 'warm', '--store', kvmsnap.store);
  });

  it('counts on without gap when its terminal leaves and comes back', async () => {
    const first = kvmsnap.start([...COUNTER, '--name', 'one']);
    const before = await printed(first, /\n5\n/);
    expect(before).toMatch(/^1\n2\n3\n4\n5\n/);
    first.kill('SIGKILL');
    await sleep(100);
    expect((await kvmsnap.json('ps'))[0].status).toBe('running');
    // What was printed meanwhile is kept for whoever comes.
    const second = kvmsnap.start(['console', 'one']);
    expect(await printed(second, /\n10\n/)).toMatch(/^1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n/);
    const end = finish(second);
    await kvmsnap.run('stop', 'one');
    expect((await end).code).toBe(0);
  });

  it('is stopped by `snapshot --then stop`, and paused by `--then pause`', async () => {
    await kvmsnap.json(...COUNTER, '--name', 'one', '--detach');
    const snapshot = ['snapshot', 'one', '--store', kvmsnap.store, '--then'];
    await kvmsnap.json(...snapshot, 'pause');
    expect((await kvmsnap.json('ps'))[0].status).toBe('paused');
    await kvmsnap.json(...snapshot, 'stop', '--tag', 'end');
    await expect.poll(() => kvmsnap.json('ps'), { timeout: HANG_MS }).toEqual([]);
    await kvmsnap.json('verify', 'end', '--store', kvmsnap.store);
  });

  it('is saved in increments, which `flatten` makes one snapshot of', async () => {
    await kvmsnap.json(...COUNTER, '--name', 'one', '--detach');
    const snapshot = ['snapshot', 'one', '--store', kvmsnap.store];
    const base = await kvmsnap.json(...snapshot, '--tag', 'base');
    const next = await kvmsnap.json(...snapshot, '--tag', 'next', '--parent', 'base');
    expect(next.pages).toBeLessThan(base.pages);
    const third = await kvmsnap.json(...snapshot, '--tag', 'third', '--parent', next.digest);
    const refused = await kvmsnap.run(...snapshot, '--parent', 'nothing');
    expect(refused.code).toBe(4);
    const at = ['--store', kvmsnap.store] as const;
    const flat = await kvmsnap.json('flatten', 'third', ...at, '--tag', 'flat');
    expect(flat.tag).toBe('flat');
    await kvmsnap.json('flatten', 'third', ...at, '--tag', 'merged', '--parent', 'base');
    for (const tag of ['base', 'next', third.digest]) await kvmsnap.json('delete', tag, ...at);
    const list: { tag: string; summary: { layers: number } }[] = await kvmsnap.json('list', ...at);
    expect(list.map(({ tag, summary }) => [tag, summary.layers])).toEqual([
      ['flat', 1],
      ['merged', 2],
    ]);
    await kvmsnap.json('gc', ...at, '--grace', '0');
    for (const tag of ['flat', 'merged']) await kvmsnap.json('verify', tag, ...at);
    await kvmsnap.json('restore', 'flat', ...at, '--name', 'two', '--detach');
    // Of the restored machine the snapshot that it is from is a parent.
    await kvmsnap.json('snapshot', 'two', ...at, '--parent', 'flat');
    const other = await kvmsnap.run(...snapshot, '--parent', 'flat');
    expect(other.code).toBe(2);
  });

  it('keeps its name from others until it is gone', async () => {
    await kvmsnap.json(...COUNTER, '--name', 'one', '--detach');
    const second = await kvmsnap.run(...COUNTER, '--name', 'one', '--detach');
    expect(second).toMatchObject({ code: 1, stdout: '' });
    expect(second.stderr).toMatch(/^kvmsnap: a machine named one is there already.*\n$/);
    await kvmsnap.run('stop', 'one');
    await kvmsnap.json(...COUNTER, '--name', 'one', '--detach');
  });

  it('goes to one of several who start it at once', async () => {
    const runs = await Promise.all(
      Array.from({ length: 4 }, () => kvmsnap.run(...COUNTER, '--name', 'one', '--detach')),
    );
    expect(runs.filter(({ code }) => code === 0)).toHaveLength(1);
    expect(await kvmsnap.json('ps')).toHaveLength(1);
  });

  it('is forgotten when its host process was killed', async () => {
    const { pid } = await kvmsnap.json(...COUNTER, '--name', 'one', '--detach');
    process.kill(pid, 'SIGKILL');
    await expect.poll(() => kvmsnap.json('ps'), { timeout: HANG_MS }).toEqual([]);
    expect(filesOf('one')).toEqual(['one.log']);
    await kvmsnap.json(...COUNTER, '--name', 'one', '--detach');
  });

  it('is closed by SIGTERM to its host process', async () => {
    const { pid } = await kvmsnap.json(...COUNTER, '--name', 'one', '--detach');
    process.kill(pid, 'SIGTERM');
    await expect
      .poll(() => existsSync(join(runtime(), 'one.json')), { timeout: HANG_MS })
      .toBe(false);
    const log = readFileSync(join(runtime(), 'one.log'), 'utf8');
    expect(log).toMatch(/ended by SIGTERM\n.*ended: closed/);
  });

  it('is stopped by force when its host process does not answer', async () => {
    const { pid } = await kvmsnap.json(...COUNTER, '--name', 'one', '--detach');
    process.kill(pid, 'SIGSTOP');
    for (const { code, stderr } of await Promise.all(
      ['pause', 'stop'].map((command) => kvmsnap.run(command, 'one')),
    )) {
      expect(code).toBe(1);
      expect(stderr).toMatch(/has not answered for 8 s.*`kvmsnap stop --kill one` ends it/);
    }
    expect(await kvmsnap.json('ps')).toEqual([{ name: 'one', status: 'unknown' }]);
    expect((await kvmsnap.run('stop', '--kill', 'one')).code).toBe(0);
    expect(await kvmsnap.json('ps')).toEqual([]);
  });
});
