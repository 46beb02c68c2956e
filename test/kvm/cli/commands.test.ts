import { readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CommandLine, finish, printed } from './command.js';

let kvmsnap: CommandLine;
beforeEach(() => {
  kvmsnap = new CommandLine();
});
afterEach(() => kvmsnap.clean());

/** 16-bit: prints `hi` on COM1 and writes 7 to the exit port. */
const HELLO = Buffer.from([
  ...[0xba, 0xf8, 0x03], // mov $0x3f8, %dx
  ...[0xb0, 0x68, 0xee], // mov $'h', %al; out %al, %dx
  ...[0xb0, 0x69, 0xee],
  ...[0xb0, 0x07, 0xe6, 0xf4], // mov $7, %al; out %al, $0xf4
  ...[0xeb, 0xfe], // jmp .
]);

function hello(): string {
  const path = join(kvmsnap.directory, 'hello.bin');
  writeFileSync(path, HELLO);
  return path;
}

describe('run', () => {
  it("prints what the guest prints, and exits with the guest's code", async () => {
    const run = ['run', '--bare', hello(), '--mode', 'real', '--memory', '1M', '--no-irqchip'];
    expect(await kvmsnap.run(...run)).toEqual({ code: 7, stdout: 'hi', stderr: '' });
    const named = await kvmsnap.run(...run, '--name', 'one');
    expect(named).toEqual({ code: 7, stdout: 'hi', stderr: '' });
    const json = await kvmsnap.run(...run, '--json');
    expect(JSON.parse(json.stdout)).toEqual({
      stop: { reason: 'exit-port', code: 7 },
      exitCode: 7,
    });
    expect(json.stderr).toBe('hi');
  });

  it('loads and enters a flat binary where it is told', async () => {
    const path = join(kvmsnap.directory, 'later.bin');
    writeFileSync(path, Buffer.concat([Buffer.from([0xf4]), HELLO]));
    const place = ['--load-address', '0x2000', '--entry', '0x2001'];
    const run = ['run', '--bare', path, '--mode', 'real', '--memory', '1M', ...place];
    expect(await kvmsnap.run(...run)).toMatchObject({ code: 7, stdout: 'hi' });
  });

  it('moves and removes devices', async () => {
    const run = ['run', '--bare', hello(), '--mode', 'real', '--memory', '1M'];
    expect(await kvmsnap.run(...run, '--device', 'serial=off')).toMatchObject({
      code: 7,
      stdout: '',
    });
    const ports = HELLO.map((byte) => (byte === 0xf4 ? 0x80 : byte));
    const path = join(kvmsnap.directory, 'port80.bin');
    writeFileSync(path, ports);
    const moved = ['run', '--bare', path, '--mode', 'real', '--memory', '1M'];
    expect(await kvmsnap.run(...moved, '--exit-port', '0x80')).toMatchObject({ code: 7 });
  });

  it('says how a guest failed', async () => {
    const path = join(kvmsnap.directory, 'ud2.bin');
    writeFileSync(path, Buffer.from([0x0f, 0x0b]));
    const { code, stderr } = await kvmsnap.run('run', '--bare', path, '--memory', '2M');
    expect(code).toBe(1);
    expect(stderr).toMatch(/^kvmsnap: the guest shut down by a triple fault.*\n$/);
  });

  it('ends with its reader and with signals', async () => {
    const counter = ['run', '--guest', 'counter', '--no-irqchip', '--memory', '64M'];
    const piped = kvmsnap.start(counter);
    await printed(piped, /\n2\n/);
    piped.stdout?.destroy();
    expect(await finish(piped)).toMatchObject({ code: 0, stderr: '' });
    for (const [signal, expected] of [
      ['SIGTERM', 143],
      ['SIGINT', 130],
    ] as const) {
      const child = kvmsnap.start(counter);
      const end = finish(child);
      await new Promise((resolve) => child.stdout?.once('data', resolve));
      child.kill(signal);
      expect((await end).code).toBe(expected);
    }
  });
});

describe('restore --on-demand', () => {
  it('records which pages the guest touched, and fetches those first the next time', async () => {
    await kvmsnap.json('demo', '--store', kvmsnap.store);
    const restore = ['restore', '--store', kvmsnap.store, '--on-demand'];
    const interrupted = async (...args: string[]) => {
      const child = kvmsnap.start([...restore, ...args]);
      await printed(child, /\d/);
      child.kill('SIGINT');
      const { code, stderr } = await finish(child);
      expect(code).toBe(130);
      return stderr;
    };
    const recorded = await interrupted('demo', '--record', 'warm');
    expect(recorded).toMatch(/warm is sha256:[0-9a-f]{64}, with a working set of \d+ pages/);
    const inspected = await kvmsnap.json('inspect', 'warm', '--store', kvmsnap.store);
    expect(inspected.workingSet.pages).toBeGreaterThan(0);
    const text = await kvmsnap.run('inspect', 'warm', '--store', kvmsnap.store);
    expect(text.stdout).toMatch(/working set +\d+ pages in \d+ runs/);
    await kvmsnap.json('verify', 'warm', '--store', kvmsnap.store);
    expect(await interrupted('warm', '--prefetch')).toBe('');
    expect((await kvmsnap.run(...restore, 'demo', '--prefetch')).stderr).toContain('working set');
    for (const wrong of [
      ['restore', 'demo', '--store', kvmsnap.store, '--prefetch'],
      [...restore, 'demo', '--record', 'x', '--name', 'one'],
      [...restore, 'warm', '--prefetch', '--record', 'x'],
    ]) {
      expect((await kvmsnap.run(...wrong)).code).toBe(2);
    }
  });
});

describe('restore', () => {
  it('goes on in this process', async () => {
    await kvmsnap.json('demo', '--store', kvmsnap.store);
    const child = kvmsnap.start(['restore', 'demo', '--store', kvmsnap.store]);
    const text = await printed(child, /(\d+\n){5}/);
    const numbers = text.split('\n').slice(1, 4).map(Number);
    const [first] = numbers as [number];
    expect(first).toBeGreaterThan(20);
    expect(numbers).toEqual([first, first + 1, first + 2]);
    child.kill('SIGTERM');
  });

  it('is refused with code 4 for a snapshot that is not there or not whole', async () => {
    await kvmsnap.json('demo', '--store', kvmsnap.store);
    const store = ['--store', kvmsnap.store];
    expect((await kvmsnap.run('restore', 'nope', ...store)).code).toBe(4);
    const blobs = join(kvmsnap.store, 'blobs/sha256');
    for (const name of readdirSync(blobs)) {
      const path = join(blobs, name);
      rmSync(path);
      writeFileSync(path, 'garbage');
    }
    for (const command of ['restore', 'inspect', 'verify']) {
      const { code, stderr } = await kvmsnap.run(command, 'demo', ...store);
      expect(code).toBe(4);
      expect(stderr).toMatch(/^kvmsnap: [^\n]+\n$/);
    }
  });
});

describe('demo', () => {
  it('goes on with the very next number in another process, and leaves nothing behind', async () => {
    const before = readdirSync(tmpdir()).filter((name) => name.startsWith('kvmsnap-demo-'));
    const result = await kvmsnap.json('demo');
    expect(result.countAfterRestore).toBe(result.countAtSnapshot + 1);
    expect(result.countAtEnd).toBeGreaterThan(result.countAfterRestore);
    expect(result.restoredInPid).not.toBe(result.pid);
    for (const cost of Object.values(result.costs)) expect(cost).toBeGreaterThan(0);
    const after = readdirSync(tmpdir()).filter((name) => name.startsWith('kvmsnap-demo-'));
    expect(after.filter((name) => !before.includes(name))).toEqual([]);
  });
});

describe('doctor', () => {
  it('finds this host usable, and says which KVM it is', async () => {
    const { usable, kvm, capabilities } = await kvmsnap.json('doctor');
    expect(usable).toBe(true);
    expect(['vmx', 'svm', 'pvm', 'software']).toContain(kvm.kind);
    expect(capabilities.KVM_CAP_USER_MEMORY).toBeGreaterThan(0);
  });

  it('works without the addon', async () => {
    const child = kvmsnap.start(['doctor', '--json'], { KVMSNAP_ADDON: '/nonexistent.node' });
    const { code, stdout } = await finish(child);
    expect(code).toBe(1);
    expect(JSON.parse(stdout)).toMatchObject({ usable: false });
  });
});

describe('what cannot be done', () => {
  it.each([
    [['bogus'], 2],
    [['run', '--guest', 'counter', '--memory', '5000'], 2],
    [['run', '--bare', '/nonexistent', '--name', 'one', '-d'], 1],
    [['pause', 'none'], 1],
    [['list', '--store', '/nonexistent'], 4],
  ])('%j gives exit code %i and one line', async (args, expected) => {
    const { code, stdout, stderr } = await kvmsnap.run(...args);
    expect(stderr).toMatch(/^kvmsnap: [^\n]+\n$/);
    expect({ code, stdout }).toEqual({ code: expected, stdout: '' });
  });
});
