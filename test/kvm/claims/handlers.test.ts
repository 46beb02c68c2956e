import { describe, expect, it } from 'vitest';
import type { Vm } from '../../../lib/index.js';
import { rounds, SLOWDOWN } from '../support/host.js';
import { stopOf, until } from '../support/machines.js';
import { createRing3Smp, line } from '../support/multi.js';
import { createPorts, type Operation, result, runList, untilPass } from '../support/ports.js';

const READ: Operation[] = [{ op: 'in', size: 1, port: 0x500 }];

/** A handler that is asked, and answers only when the test says so. */
function held(vm: Vm) {
  let asked = () => {};
  const reached = new Promise<void>((resolve) => {
    asked = resolve;
  });
  let answer: (value: number) => void = () => {};
  let fail: (error: Error) => void = () => {};
  vm.claimPorts({
    base: 0x500,
    read: () =>
      new Promise<number>((resolve, reject) => {
        answer = resolve;
        fail = reject;
        asked();
      }),
  });
  return { reached, answer: (value: number) => answer(value), fail: (error: Error) => fail(error) };
}

describe('a handler that fails poisons the machine', () => {
  const failures: [string, () => number | Promise<number>, RegExp][] = [
    [
      'throws',
      () => {
        throw new Error('out of order');
      },
      /port 0x500: out of order/,
    ],
    ['rejects', () => Promise.reject(new Error('later')), /port 0x500: later/],
    ['gives a value that does not fit', () => 256, /gave 256, which is no value of 1 bytes/],
    ['gives no number', () => 'x' as never, /gave x/],
    ['gives nothing', () => undefined as never, /gave undefined/],
  ];
  it.each(failures)('when it %s', async (_how, read, message) => {
    const vm = await createPorts(READ);
    vm.claimPorts({ base: 0x500, read });
    await vm.start();
    const stop = await stopOf(vm);
    expect(stop).toMatchObject({ reason: 'error', error: { code: 'ERR_HANDLER' } });
    expect(stop.error?.message).toMatch(message);
    expect(vm.status).toBe('poisoned');
    await expect(vm.resume()).rejects.toMatchObject({ code: 'ERR_POISONED' });
  });

  it('when an MMIO handler throws', async () => {
    const vm = await createPorts([{ op: 'store', size: 4, address: 0xd0000000n, value: 1n }]);
    vm.claimMmio({
      base: 0xd0000000n,
      length: 4096,
      write: () => {
        throw new Error('bus error');
      },
    });
    await vm.start();
    expect((await stopOf(vm)).error?.message).toMatch(/MMIO 0xd0000000: bus error/);
  });
});

describe('while a handler is busy', () => {
  it('kill does not wait for it, and its late answer is nobody’s', async () => {
    const vm = await createPorts(READ);
    const handler = held(vm);
    await vm.start();
    await handler.reached;
    await vm.kill();
    expect(await stopOf(vm)).toMatchObject({ reason: 'killed' });
    handler.answer(1);
    await new Promise((resolve) => setImmediate(resolve));
    expect(vm.status).toBe('poisoned');
  });

  it('close does not wait for it either', async () => {
    const vm = await createPorts(READ);
    const handler = held(vm);
    await vm.start();
    await handler.reached;
    await vm.close();
    expect(vm.status).toBe('closed');
    handler.fail(new Error('too late'));
    await new Promise((resolve) => setImmediate(resolve));
  });

  it('pause waits for its answer, which the guest then has', async () => {
    const vm = await createPorts(READ);
    const handler = held(vm);
    await vm.start();
    await handler.reached;
    let paused = false;
    const pausing = vm.pause().then(() => {
      paused = true;
    });
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(paused).toBe(false);
    handler.answer(0x42);
    await pausing;
    expect(vm.status).toBe('paused');
    await vm.resume();
    await untilPass(vm, 1n);
    expect(result(vm, 0)).toBe(0x42n);
  });

  it('the claim may be released: the pending access is still answered', async () => {
    const vm = await createPorts(READ);
    let claim = { release: () => {} };
    claim = vm.claimPorts({
      base: 0x500,
      read: async () => {
        claim.release();
        return 0x33;
      },
    });
    expect(await runList(vm, READ)).toEqual([0x33n]);
  });

  it('handlers may call the machine', async () => {
    const vm = await createPorts([
      { op: 'out', size: 4, port: 0x500, value: 0x300000 },
      { op: 'load', size: 8, address: 0x300000n },
    ]);
    vm.claimPorts({
      base: 0x500,
      write: async (_port, _size, address) => {
        vm.memory.write(BigInt(address), Buffer.from('by hand!'));
      },
    });
    await vm.start();
    await untilPass(vm, 1n);
    const bytes = Buffer.alloc(8);
    bytes.writeBigUInt64LE(result(vm, 1));
    expect(bytes.toString()).toBe('by hand!');
  });
});

describe('races', () => {
  it('kill and close at any moment of a busy handler: 100 machines', async () => {
    const list: Operation[] = Array.from({ length: 100 }, () => READ[0]!);
    for (let round = 0; round < rounds(100); round++) {
      const vm = await createPorts(list);
      vm.claimPorts({ base: 0x500, read: async () => round & 0xff });
      await vm.start();
      await new Promise((resolve) => setTimeout(resolve, (round % 5) * Math.min(SLOWDOWN, 3)));
      if (round % 2 === 0) await vm.kill();
      await vm.close();
      expect(vm.status).toBe('closed');
    }
  });

  it('pause and resume between answers: each is given once, and to its own access', async () => {
    const list: Operation[] = Array.from({ length: 200 }, () => READ[0]!);
    const vm = await createPorts(list);
    let next = 0;
    vm.claimPorts({ base: 0x500, read: async () => next++ & 0xff });
    await vm.start();
    for (let round = 0; round < rounds(300); round++) {
      await vm.pause();
      await vm.resume();
    }
    await untilPass(vm, 1n);
    expect(list.map((_, n) => result(vm, n))).toEqual(list.map((_, n) => BigInt(n & 0xff)));
    expect(next).toBe(list.length);
  });

  it('one vCPU in a handler does not hold up the other', async () => {
    const vm = await createRing3Smp(2);
    // Each vCPU says that it is ready: only the first waits for its answer.
    let release = () => {};
    const busy = new Promise<void>((resolve) => {
      release = resolve;
    });
    let asked = false;
    vm.claimMmio({
      base: 0xd0000000n,
      length: 4096,
      read: () => {
        asked = true;
        return busy.then(() => 1n);
      },
    });
    // mov eax, [0xd0000000] at the first vCPU's next instruction: mov ebx, imm; mov eax, [rbx].
    const at = 0x300000n;
    vm.memory.write(at, Buffer.from([0xbb, 0, 0, 0, 0xd0, 0x8b, 0x03, 0xeb, 0xfe]));
    await vm.vcpus[0]!.setRegs({ rip: at });
    await vm.start();
    await until('the first vCPU waits', () => asked);
    const before = line(vm, 1);
    await until('the other vCPU counts on', () => line(vm, 1) > before + 1000n);
    release();
    await vm.pause();
    expect((await vm.vcpus[0]!.getRegs()).rax).toBe(1n);
  });

  it('two vCPUs in handlers at once get their own answers', async () => {
    const vm = await createRing3Smp(2);
    const at = 0x300000n;
    // mov edx, 0x500; in eax, dx; jmp .
    vm.memory.write(at, Buffer.from([0xba, 0, 5, 0, 0, 0xed, 0xeb, 0xfe]));
    vm.memory.write(at + 64n, Buffer.from([0xba, 4, 5, 0, 0, 0xed, 0xeb, 0xfe]));
    await vm.vcpus[0]!.setRegs({ rip: at });
    await vm.vcpus[1]!.setRegs({ rip: at + 64n });
    const waiting = new Map<number, (value: number) => void>();
    vm.claimPorts({
      base: 0x500,
      length: 8,
      read: (port) => new Promise((resolve) => waiting.set(port, resolve)),
    });
    await vm.start();
    await until('both vCPUs ask', () => waiting.size === 2);
    // In the other order than the order of asking, whichever that was.
    waiting.get(0x504)!(0x504);
    waiting.get(0x500)!(0x500);
    await vm.pause();
    expect((await vm.vcpus[0]!.getRegs()).rax).toBe(0x500n);
    expect((await vm.vcpus[1]!.getRegs()).rax).toBe(0x504n);
  });
});
