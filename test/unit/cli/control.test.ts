import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { MachineClient } from '../../../lib/cli/control/client.js';
import { Connection } from '../../../lib/cli/control/connection.js';
import { LineReader, MAX_REQUEST_LINE } from '../../../lib/cli/control/lines.js';
import { ControlServer } from '../../../lib/cli/control/server.js';
import { type FakeVm, fakeMachine } from './fake-machine.js';

let directory: string;
let path: string;
let vm: FakeVm;
let server: ControlServer;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'kvmsnap-control-'));
  path = join(directory, 'fake.sock');
  const fake = fakeMachine();
  vm = fake.vm;
  server = await ControlServer.listen(fake.machine, path);
});

afterEach(async () => {
  vm.powerOff();
  await server.close();
  rmSync(directory, { recursive: true });
});

/** Sends bytes and gives all that comes back until the server hangs up. */
async function send(bytes: string | Buffer): Promise<string> {
  const socket = connect(path);
  let answer = '';
  socket.on('data', (data) => {
    answer += data;
  });
  socket.on('error', () => undefined);
  socket.write(bytes);
  await once(socket, 'close');
  return answer;
}

describe('the control socket', () => {
  it('is for its owner only', () => {
    expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  it('answers for the machine', async () => {
    using client = await MachineClient.open('fake', path);
    expect(await client.status()).toMatchObject({ name: 'fake', vcpus: 1, memory: 4096 });
    await client.resume();
    expect((await client.status()).status).toBe('running');
  });

  it('gives a console what was printed before, and all after, once', async () => {
    vm.print('before ');
    await new Promise(setImmediate);
    using first = await MachineClient.open('fake', path);
    using second = await MachineClient.open('fake', path);
    await Promise.all([first.attach(), first.attach(), second.attach()]);
    vm.print('after');
    await first.input(Buffer.from('typed'));
    expect(vm.typed).toBe('typed');
    vm.powerOff();
    void server.close();
    const read = async (client: MachineClient) =>
      (await client.output.setEncoding('latin1').toArray()).join('');
    const [a, b] = await Promise.all([read(first), read(second)]);
    expect([a, b]).toEqual(['before after', 'before after']);
    expect(await first.stopped).toEqual({ reason: 'power-off' });
  });

  it.each([
    ['no JSON', 'hello\n'],
    ['a value that is no object', '[]\n'],
    ['an unknown operation', '{"id":1,"op":"format"}\n'],
    ['an unknown field', '{"id":1,"op":"pause","force":true}\n'],
    ['no id', '{"op":"pause"}\n'],
    ['a negative id', '{"id":-1,"op":"pause"}\n'],
    ['a relative store', '{"id":1,"op":"snapshot","store":"x","then":"pause"}\n'],
    ['a store with a NUL', '{"id":1,"op":"snapshot","store":"/x\\u0000","then":"pause"}\n'],
    ['input that is no base64', '{"id":1,"op":"input","data":"@@"}\n'],
    ['deep nesting', `${'['.repeat(60_000)}\n`],
    ['a prototype', '{"__proto__":{"op":"pause"},"id":1}\n'],
    ['bytes that are no text', Buffer.from([0xff, 0xfe, 0x00, 0x0a])],
    ['a line without end', 'x'.repeat(MAX_REQUEST_LINE + 1)],
  ])('hangs up on %s, and the machine lives', async (_what, bytes) => {
    expect(JSON.parse(await send(bytes))).toMatchObject({
      kind: 'error',
      error: { code: 'ERR_CONTROL' },
    });
    using client = await MachineClient.open('fake', path);
    expect((await client.status()).status).toBe('paused');
  });

  it('hangs up on a client that asks without end', async () => {
    const flood = '{"id":1,"op":"status"}\n'.repeat(1000);
    expect(await send(flood)).toContain('more than 16 requests');
  });

  it('does not mind clients that vanish', async () => {
    for (let i = 0; i < 100; i++) {
      const socket = connect(path);
      socket.on('error', () => undefined);
      socket.write('{"id":1,"op":"attach"}\n{"id":2,"op":"sta');
      if (i % 2) await once(socket, 'connect');
      socket.destroy();
    }
    vm.print('x');
    using client = await MachineClient.open('fake', path);
    expect((await client.status()).name).toBe('fake');
  });

  /** A connection that says `bytes` and no more. */
  async function sit(bytes = ''): Promise<Socket> {
    const socket = connect(path);
    socket.on('error', () => undefined);
    socket.write(bytes);
    await once(socket, 'connect');
    return socket;
  }

  it.each([
    ['say nothing', ''],
    ['have sent half a request', '{"id":1,"op":"sta'],
    ['only watch', '{"id":1,"op":"attach"}\n'],
  ])('lets one more in however many %s', async (_what, bytes) => {
    const sitting = await Promise.all(Array.from({ length: 200 }, () => sit(bytes)));
    using client = await MachineClient.open('fake', path);
    expect((await client.status()).name).toBe('fake');
    for (const socket of sitting) socket.destroy();
  });

  it('drops those that want nothing before those that watch or wait', async () => {
    using watching = await MachineClient.open('fake', path);
    await watching.attach();
    using waiting = await MachineClient.open('fake', path);
    let answer: () => void = () => {};
    vm.pause = () => new Promise((resolve) => (answer = resolve));
    const paused = waiting.pause();
    await waiting.status();
    const sitting = await Promise.all(Array.from({ length: 100 }, () => sit()));
    vm.print('seen');
    expect(String((await once(watching.output, 'data'))[0])).toBe('seen');
    answer();
    await paused;
    for (const socket of sitting) socket.destroy();
  });

  it('hangs up on one that asks and takes no answers', async () => {
    const socket = await sit();
    // Without a listener for data nothing is read.
    const closed = new Promise((resolve) => socket.once('close', resolve));
    let open = true;
    void closed.then(() => (open = false));
    while (open) {
      socket.write('{"id":1,"op":"status"}\n'.repeat(8));
      await new Promise(setImmediate);
    }
    using client = await MachineClient.open('fake', path);
    expect((await client.status()).name).toBe('fake');
  });

  it('hangs up on one that has not asked for anything for long, not on one that watches', async () => {
    const { machine } = fakeMachine();
    const listener = createServer((socket) => new Connection(socket, machine, 100));
    const at = join(directory, 'idle.sock');
    await new Promise<void>((resolve) => listener.listen(at, resolve));
    const watching = connect(at);
    watching.write('{"id":1,"op":"attach"}\n');
    await once(watching, 'data');
    const half = connect(at);
    half.on('error', () => undefined);
    // Bytes that make no request are no sign of life.
    const trickle = setInterval(() => half.write('x'), 10);
    await new Promise((resolve) => half.once('close', resolve));
    clearInterval(trickle);
    expect(watching.closed).toBe(false);
    watching.destroy();
    listener.close();
  });

  it('tells of an error of the machine without hanging up', async () => {
    using client = await MachineClient.open('fake', path);
    vm.pause = async () => {
      throw new Error('cannot');
    };
    await expect(client.pause()).rejects.toThrow('cannot');
    expect((await client.status()).name).toBe('fake');
  });
});

describe('a client', () => {
  it.each([
    ['no JSON', 'hello\n'],
    ['another protocol', '{"kind":"result","id":1,"result":{"protocol":2}}\n'],
    ['an unknown message', '{"kind":"surprise"}\n'],
    ['a line without end', 'x'.repeat(2 ** 20 + 1)],
    ['nothing, and hangs up', ''],
  ])('fails with ERR_CONTROL for a host that sends %s', async (_what, bytes) => {
    const hostile = createServer((socket) => socket.end(bytes));
    const at = join(directory, 'hostile.sock');
    await new Promise<void>((resolve) => hostile.listen(at, resolve));
    using client = await MachineClient.open('hostile', at);
    await expect(client.status()).rejects.toMatchObject({ code: 'ERR_CONTROL' });
    hostile.close();
  });
});

describe('a host process that is silent', () => {
  const LIMIT = 400;

  async function host(onLine: (id: number, op: string, socket: Socket) => void): Promise<string> {
    const at = join(directory, 'silent.sock');
    const listener = createServer((socket) => {
      const reader = new LineReader(MAX_REQUEST_LINE);
      socket.on('error', () => undefined);
      socket.on('data', (chunk) => {
        for (const value of reader.push(chunk)) {
          const { id, op } = value as { id: number; op: string };
          onLine(id, op, socket);
        }
      });
    });
    await new Promise<void>((resolve) => listener.listen(at, resolve));
    onTestFinished(() => void listener.close());
    return at;
  }

  it('fails what was asked, and says how to end it', async () => {
    const at = await host(() => undefined);
    using client = await MachineClient.open('hung', at, LIMIT);
    await expect(client.pause()).rejects.toMatchObject({
      code: 'ERR_CONTROL',
      message: expect.stringContaining('kvmsnap stop --kill hung'),
    });
    await expect(client.stopped).rejects.toMatchObject({ code: 'ERR_CONTROL' });
  });

  it('is told from one that takes long', async () => {
    let questions = 0;
    let pause = 0;
    const at = await host((id, op, socket) => {
      if (op === 'pause') pause = id;
      else questions += 1;
      // After twice as long as a silent one is given.
      const answered = questions > 8 ? pause : id;
      if (op === 'status') socket.write(`{"kind":"result","id":${answered},"result":null}\n`);
    });
    using client = await MachineClient.open('slow', at, LIMIT);
    await client.pause();
    expect(questions).toBeGreaterThan(8);
  });
});

describe('lines', () => {
  it('are the same however the bytes are cut', () => {
    const text = Buffer.from('{"a":"ä"}\n[1]\n"x"\n');
    for (let size = 1; size <= text.length; size++) {
      const reader = new LineReader(64);
      const found: unknown[] = [];
      for (let at = 0; at < text.length; at += size) {
        found.push(...reader.push(text.subarray(at, at + size)));
      }
      expect(found).toEqual([{ a: 'ä' }, [1], 'x']);
    }
  });
});
