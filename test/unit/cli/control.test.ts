import { once } from 'node:events';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { MachineClient } from '../../../lib/cli/control/client.js';
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
