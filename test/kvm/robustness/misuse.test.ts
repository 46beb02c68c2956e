import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished } from 'vitest';
import { KvmsnapError } from '../../../lib/errors.js';
import type { NativeMachineConfig } from '../../../lib/native/binding.js';
import { nativeBinding } from '../../../lib/native/load.js';

import { createCode, IN_AL_DX, movEdx, OUT_DX_AL, SPIN as SPIN32 } from '../support/code.js';
import { stopOf, until } from '../support/machines.js';
import { ASK, configOf, Heard, MEMORY, rawImage, rawMachine } from './raw.js';

// biome-ignore lint/suspicious/noExplicitAny: misuse is what no type allows
type Any = any;

const binding = nativeBinding();

const detached = (): Uint8Array => {
  const bytes = new Uint8Array(16);
  structuredClone(bytes.buffer, { transfer: [bytes.buffer] });
  return bytes;
};

/** Whatever JavaScript may hand over. */
const anything = fc.oneof(
  { weight: 3, arbitrary: fc.anything({ withBigInt: true, withTypedArray: true }) },
  fc.constantFrom<unknown>(
    ...[0, 1, -1, 1.5, Number.NaN, 2 ** 32, 2 ** 53, 2 ** 60, Number.POSITIVE_INFINITY],
    ...[0n, 1n, -1n, 2n ** 52n, 2n ** 64n - 1n, 2n ** 64n, 2n ** 200n],
    ...['regs', 'sregs2', 'msrs', 'lapic', 'nothing', 'resume', Symbol('it'), null, undefined],
    ...[true, false, () => 1, [], {}, [[]], new Date(), new Proxy({}, {}), Promise.resolve()],
  ),
  fc
    .constantFrom(
      () => detached(),
      () => new Uint8Array(new SharedArrayBuffer(64)),
      () => new Uint8Array(new (ArrayBuffer as Any)(64, { maxByteLength: 128 })),
      () => new Float64Array(9),
      () => new DataView(new ArrayBuffer(8)),
      () => Object.create(Uint8Array.prototype),
      () => ({ slot: 2, gpa: 0x400000n, size: 4096, flags: 0 }),
      () => ({ dispatch: true, singleStep: true }),
    )
    .map((make) => make()),
);

/** How arguments are refused that make no sense, or no sense now. */
const REFUSED = ['ERR_INVALID_ARGUMENT', 'ERR_STATE', 'ERR_GUEST_ADDRESS', 'ERR_SNAPSHOT_FORMAT'];

/** Done, or refused with one of these codes. What JavaScript cannot turn into a string is a TypeError of its own. */
async function harmless(call: () => unknown, codes = REFUSED): Promise<void> {
  try {
    const result = call();
    if (result instanceof Promise) await result;
  } catch (error) {
    if (error instanceof KvmsnapError) expect(codes, error.message).toContain(error.code);
    else expect(error).toBeInstanceOf(TypeError);
  }
}

describe('arguments of any kind', () => {
  const prototype = (object: object) =>
    Object.getOwnPropertyNames(Object.getPrototypeOf(object)).filter(
      (name) => !['constructor', 'runVcpu', 'resume', 'kill', 'close', 'handOver'].includes(name),
    );

  it('to every method of a machine are refused, and it still runs', async () => {
    const machine = (await rawMachine()) as Any;
    const methods = prototype(machine).filter((name) => typeof machine[name] === 'function');
    expect(methods.length).toBeGreaterThan(20);
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...methods),
        fc.array(anything, { maxLength: 5 }),
        async (name, args) => {
          await harmless(() => machine[name](...args));
        },
      ),
      { numRuns: 1500 },
    );
    expect(['created', 'paused']).toContain(machine.status);
    const fresh = await rawMachine();
    await fresh.resume();
    await fresh.pause();
  });

  it('to every method of an image, and to the binding', async () => {
    const image = rawImage() as Any;
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('read', 'partCount', 'write'),
        fc.array(anything, { maxLength: 3 }),
        async (name, args) => {
          await harmless(() => {
            const result = image[name](...args);
            return result?.done ?? result;
          });
        },
      ),
      { numRuns: 400 },
    );
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom('createMachine', 'imageFromFiles', 'digestFile'),
        fc.array(anything, { maxLength: 3 }),
        async (name, args) => {
          // A descriptor of the test's own could be a pipe, which is read for ever.
          if (name === 'digestFile' && typeof args[0] === 'number') args[0] = -1;
          await harmless(() => {
            const result = (binding as Any)[name](...args);
            return result?.done ?? result;
          });
        },
      ),
      { numRuns: 600 },
    );
    expect(image.read(0n, 4)).toEqual(Buffer.alloc(4));
  });

  it('in a configuration: one thing wrong at a time', async () => {
    const good = configOf();
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...(Object.keys(good) as (keyof NativeMachineConfig)[]), 'image', 'state'),
        anything,
        async (key, value) => {
          await harmless(async () => {
            const config = { ...good, [key]: value } as NativeMachineConfig;
            await (await binding.createMachine(config, new Heard())).close();
          });
        },
      ),
      { numRuns: 300 },
    );
  });

  it('to a state that is loaded: the machine stays what it was', async () => {
    const machine = await rawMachine();
    const state = await machine.saveState();
    const regs = await machine.getVcpu(0, 'regs');
    const unexpected: string[] = [];
    for (const key of Object.keys(state.vcpus[0] as object)) {
      for (const value of [
        new Uint8Array(3),
        null,
        7,
        'x',
        detached(),
        [],
        new Uint8Array(1 << 20),
      ]) {
        // No bytes are a section that the machine has not; and 7 kHz is a frequency.
        if (value instanceof Uint8Array && value.length === 0) continue;
        if (key === 'tsc_khz' && value === 7) continue;
        // A host with more components has more bytes, and none of those are in use.
        if (key === 'xsave2' && value instanceof Uint8Array && value.length > 4096) continue;
        const bad = { ...state, vcpus: [{ ...state.vcpus[0], [key]: value }] };
        const outcome = await (async () => machine.loadState(bad as Any))().then(
          () => 'accepted',
          ({ code }) => code,
        );
        if (outcome !== 'ERR_INVALID_ARGUMENT') {
          unexpected.push(`${key} as ${typeof value} ${Object(value).length}: ${outcome}`);
        }
      }
    }
    expect(unexpected).toEqual([]);
    expect(await machine.getVcpu(0, 'regs')).toEqual(regs);
    expect(machine.status).not.toBe('poisoned');
  });
});

describe('objects that are not what they say', () => {
  it('methods and getters on another class, on nothing, on a proxy or an heir', async () => {
    const machine = await rawMachine();
    const image = rawImage();
    const impostors = [{}, null, undefined, 1, Object.create(machine), new Proxy(machine, {})];
    const pairs: [object, unknown[]][] = [
      [machine, [image, ...impostors]],
      [image, [machine, ...impostors]],
    ];
    for (const [object, others] of pairs) {
      const prototype = Object.getPrototypeOf(object);
      for (const name of Object.getOwnPropertyNames(prototype)) {
        if (name === 'constructor') continue;
        const { value, get } = Object.getOwnPropertyDescriptor(
          prototype,
          name,
        ) as PropertyDescriptor;
        for (const other of others) {
          expect(() => (value ?? get).call(other), `${name} on ${String(other)}`).toThrow(
            /illegal invocation/i,
          );
        }
      }
    }
    expect(machine.status).toBe('created');
  });

  it('constructors make nothing', async () => {
    const illegal = expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' });
    for (const object of [await rawMachine(), rawImage()] as Any[]) {
      expect(() => new object.constructor()).toThrow(illegal);
      expect(() => object.constructor()).toThrow(/without 'new'/);
      expect(() => Reflect.construct(object.constructor, [object, {}], Map)).toThrow(illegal);
    }
    const other = (await rawMachine()) as Any;
    expect(() => binding.createMachine(configOf(), new Heard(), other)).toThrow(illegal);
    expect(() => binding.createMachine(other, new Heard())).toThrow(illegal);
  });

  it('a progress callback that is none leaves nothing behind', () => {
    const options = { fds: [], durable: false, progress: 5 as Any };
    for (let i = 0; i < 50; i++) expect(() => rawImage().write(1, options)).toThrow(/progress/);
  });
});

describe('arguments that close what they are given to', () => {
  it('getters of a slot, of options, of a section name', async () => {
    for (const call of [
      (m: Any, trap: () => Any) =>
        m.addSlot({
          get slot() {
            return trap();
          },
          gpa: 0x200000n,
          size: 4096,
          flags: 0,
        }),
      (m: Any, trap: () => Any) =>
        m.runVcpu(0, {
          dispatch: true,
          get singleStep() {
            trap();
            return false;
          },
        }),
      (m: Any, trap: () => Any) =>
        m.getVcpu(0, {
          toString: () => {
            trap();
            return 'regs';
          },
        }),
      (m: Any, trap: () => Any) =>
        m.freeze({
          toString: () => {
            trap();
            return 'pause';
          },
        }),
      (m: Any, trap: () => Any) =>
        m.completeExit(0, 1, {
          get message() {
            trap();
            return 'x';
          },
        }),
    ]) {
      const machine = await rawMachine();
      let closing: Promise<void> | undefined;
      await harmless(
        () =>
          call(machine, () => {
            closing = machine.close();
            return 7;
          }),
        [...REFUSED, 'ERR_CLOSED'],
      );
      await closing;
      expect(machine.status).toBe('closed');
    }
  });

  it('getters of an image write', async () => {
    const image = rawImage();
    const options = {
      durable: false,
      get fds() {
        image.close();
        return [];
      },
    };
    await harmless(() => image.write(1, options).done, [...REFUSED, 'ERR_CLOSED']);
  });
});

describe('handlers of claims', () => {
  const reads = [...movEdx(0x1000), IN_AL_DX, ...SPIN32];
  const writes = [...movEdx(0x1000), OUT_DX_AL, ...SPIN32];

  it.each<[string, () => Any]>([
    [
      'throw an error',
      () => {
        throw new Error('no');
      },
    ],
    [
      'throw what is no error',
      () => {
        throw 'no';
      },
    ],
    [
      'throw what cannot be a string',
      () => {
        throw Object.create(null);
      },
    ],
    [
      'throw nothing',
      () => {
        throw undefined;
      },
    ],
    [
      'throw an error without a message',
      () => {
        throw Object.create(Error.prototype, {
          message: {
            get() {
              throw new Error();
            },
          },
        });
      },
    ],
    [
      'reject',
      async () => {
        throw new Error('no');
      },
    ],
    ['give too much', () => 256],
    ['give a symbol', () => Symbol('no')],
    ['give nothing', () => undefined],
    ['give what cannot be a string', () => Object.create(null)],
    [
      'give a thenable that throws',
      () => ({
        then() {
          throw new Error('no');
        },
      }),
    ],
  ])('that %s poison the machine, and say so', async (_, read) => {
    const vm = await createCode(reads);
    vm.claimPorts({ base: 0x1000, read });
    await vm.start();
    expect(await stopOf(vm)).toMatchObject({ reason: 'error', error: { code: 'ERR_HANDLER' } });
    expect(vm.status).toBe('poisoned');
  });

  it('that resolve twice, late, or close their machine, do no harm', async () => {
    const twice = await createCode(reads);
    const answered = new Promise<void>((resolve) => {
      twice.claimPorts({
        base: 0x1000,
        read: () =>
          ({
            then(done: (n: number) => void) {
              done(1);
              done(2);
              setTimeout(() => {
                done(3);
                resolve();
              }, 5);
            },
          }) as Any,
      });
    });
    await twice.start();
    await answered;
    await twice.pause();
    expect((await twice.vcpus[0]!.getRegs()).rax & 0xffn).toBe(1n);

    const late = await createCode(writes);
    let answer = () => {};
    const asked = new Promise<void>((resolve) => {
      late.claimPorts({
        base: 0x1000,
        write: () => {
          resolve();
          return new Promise((done) => {
            answer = done;
          });
        },
      });
    });
    await late.start();
    await asked;
    await late.close();
    answer();

    const suicidal = await createCode(reads);
    suicidal.claimPorts({
      base: 0x1000,
      read: async () => {
        await suicidal.close();
        return 1;
      },
    });
    await suicidal.start();
    await until('it is closed', () => suicidal.status === 'closed');
  });

  it('an answer of the wrong size, and one that nobody waits for', async () => {
    const heard = new Heard();
    const machine = await rawMachine(ASK, heard);
    machine.claimPorts(0x80, 1);
    machine.completeExit(0, 1, new Uint8Array(2));
    await machine.resume();
    await until('the guest asks', () => heard.asked.length > 0);
    const { question } = heard.asked[0]!;
    machine.completeExit(0, question + 1, new Uint8Array(2));
    machine.completeExit(0, question, new Uint8Array(1));
    await until('the guest asks again', () => heard.asked.length > 1);
    machine.completeExit(0, question, new Uint8Array(2));
    expect(heard.stops).toEqual([]);
    machine.completeExit(0, heard.asked[1]!.question, new Uint8Array(2));
    await until('it is poisoned', () => heard.stops.length > 0);
    expect(heard.stops[0]).toMatchObject({ reason: 'error', error: { code: 'ERR_HANDLER' } });
  });
});

it('extents that are no four numbers each, or no whole ones, are refused', () => {
  const regions = [{ gpa: 0n, size: MEMORY }];
  const page = [0, 4096, 0, 0];
  const bad = [
    [0, 4096, 0],
    [...page, 0],
    [Number.NaN, 4096, 0, 0],
    [0.5, 4096, 0, 0],
  ];
  bad.push([0, -4096, 0, 0], [0, 4096, 2 ** 60, 0], [0, 4096, 0, 2 ** 32], [Infinity, 1, 0, 0]);
  for (const numbers of bad) {
    expect(() => binding.imageFromFiles([], regions, Float64Array.from(numbers))).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARGUMENT' }),
    );
  }
  // Whole numbers that name nothing there.
  for (const numbers of [page, [0, 4096, 0, 1]]) {
    expect(() => binding.imageFromFiles([], regions, Float64Array.from(numbers))).toThrow(
      expect.objectContaining({ code: 'ERR_SNAPSHOT_FORMAT' }),
    );
  }
});

it('a file that is cut short under a machine is an error, not the end of the process', async () => {
  const directory = mkdtempSync(join(tmpdir(), 'kvmsnap-cut-'));
  onTestFinished(() => rmSync(directory, { recursive: true }));
  const path = join(directory, 'part');
  const code = Buffer.alloc(MEMORY);
  // Real mode: increments a word on each page of the first 64 KiB, over and over.
  code.set([0x31, 0xdb, 0xff, 0x87, 0x00, 0x20, 0x81, 0xc3, 0x00, 0x10, 0xeb, 0xf6], 0x1000);
  writeFileSync(path, code);
  const fd = openSync(path, 'r+');
  onTestFinished(() => closeSync(fd));
  const image = binding.imageFromFiles(
    [fd],
    [{ gpa: 0n, size: MEMORY }],
    Float64Array.of(0, MEMORY, 0, 0),
  );
  const heard = new Heard();
  const machine = await rawMachine([...code.subarray(0x1000, 0x100c)], heard, { image });
  ftruncateSync(fd, 0x3000);
  expect(() => machine.readMemory(0x10000n, 1)).toThrow(
    expect.objectContaining({ code: 'ERR_SNAPSHOT_CORRUPT' }),
  );
  expect(() => machine.writeMemory(0x10000n, new Uint8Array(1))).toThrow(
    expect.objectContaining({ code: 'ERR_SNAPSHOT_CORRUPT' }),
  );
  expect(() => image.read(0x10000n, 1)).toThrow(
    expect.objectContaining({ code: 'ERR_SNAPSHOT_CORRUPT' }),
  );
  await machine.resume();
  await until('the guest runs into it', () => heard.stops.length > 0);
  expect(machine.status).toBe('poisoned');
  expect(heard.stops[0]).toMatchObject({ reason: 'error', error: { code: 'ERR_GUEST_CRASH' } });
  await machine.close();
});
