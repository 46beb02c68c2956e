import { describe, expect, it } from 'vitest';
import { rounds } from '../support/host.js';
import { bootGuest, createGuest, untilCounted } from '../support/machines.js';
import { bootRing3Smp, bootSmp, line, untilAllCount } from '../support/multi.js';

/** Burns up to some microseconds, so that the next call meets the vCPU elsewhere. */
const dither = (round: number): void => {
  for (let i = (round * 7919) % 2000; i > 0; i--) Math.sqrt(i);
};

describe('a kick is never lost', () => {
  it('1 vCPU: 2000 pauses of a spinning guest all resolve', async () => {
    const vm = await createGuest('hostile');
    await vm.start();
    for (let round = 0; round < rounds(2000); round++) {
      dither(round);
      await vm.pause();
      expect(vm.status).toBe('paused');
      await vm.resume();
    }
  });

  it('2 vCPUs: 2000 pauses all resolve, and neither vCPU counts on meanwhile', async () => {
    const vm = await bootRing3Smp(2);
    for (let round = 0; round < rounds(2000); round++) {
      dither(round);
      await vm.pause();
      if (round % 100 === 0) {
        const before = [line(vm, 0), line(vm, 1)];
        await new Promise((resolve) => setImmediate(resolve));
        expect([line(vm, 0), line(vm, 1)]).toEqual(before);
      }
      await vm.resume();
    }
    await untilAllCount(vm);
  });

  it('2 vCPUs in ring 0, started by IPIs: 300 pauses', async () => {
    const vm = await bootSmp(2);
    for (let round = 0; round < rounds(300); round++) {
      dither(round);
      await vm.pause();
      await vm.resume();
    }
    await untilAllCount(vm);
  });

  it('pauses that are asked for before the vCPU has entered the guest', async () => {
    const vm = await createGuest('hostile');
    for (let round = 0; round < rounds(500); round++) {
      // No await between the two: the pause meets the thread on its way in.
      const resumed = vm.resume();
      const paused = vm.pause();
      await Promise.all([resumed, paused]);
      expect(vm.status).toBe('paused');
    }
  });

  it('a guest that exits all the time: 1000 pauses', async () => {
    // Each line is some ten exits, on the serial port.
    const vm = await bootGuest('counter', { regs: { rsi: 1n } });
    vm.console.resume();
    for (let round = 0; round < rounds(1000); round++) {
      await vm.pause();
      await vm.resume();
    }
    await untilCounted(vm);
  });

  it('many calls at once: the last one decides, and pauses are answered in the order of the calls', async () => {
    const vm = await bootRing3Smp(2);
    for (let round = 0; round < rounds(100); round++) {
      const order: number[] = [];
      await Promise.all(
        Array.from({ length: 8 }, async (_, i) => {
          if (i === 4) await vm.resume();
          else await vm.pause();
          order.push(i);
        }),
      );
      // A resume waits for nothing, so that it may be answered before pauses that were asked for earlier.
      expect(order.filter((i) => i !== 4)).toEqual([0, 1, 2, 3, 5, 6, 7]);
      expect(vm.status).toBe('paused');
      const stands = [line(vm, 0), line(vm, 1)];
      await new Promise((resolve) => setImmediate(resolve));
      expect([line(vm, 0), line(vm, 1)]).toEqual(stands);
      await vm.resume();
    }
    await untilAllCount(vm);
  });

  it('kill and close at any moment: 150 machines', async () => {
    for (let round = 0; round < rounds(150); round++) {
      const vm = await createGuest('hostile', { vcpus: 1 + (round % 2) });
      await vm.start();
      dither(round);
      const paused = vm.pause().then(
        () => 'paused',
        ({ code }) => code,
      );
      // Neither is ever refused, whatever else ends the machine.
      const killed = vm.kill();
      if (round % 3 === 0) await vm.close();
      expect(['paused', 'ERR_POISONED', 'ERR_CLOSED']).toContain(await paused);
      await killed;
      expect(vm.status).toBe(round % 3 === 0 ? 'closed' : 'poisoned');
      await expect(vm.pause()).rejects.toMatchObject({
        code: round % 3 === 0 ? 'ERR_CLOSED' : 'ERR_POISONED',
      });
      await vm.close();
      expect(vm.status).toBe('closed');
    }
  });

  it('run() is ended by pause(): 500 times', async () => {
    const vm = await createGuest('hostile');
    for (let round = 0; round < rounds(500); round++) {
      const exit = vm.vcpus[0]!.run({ dispatch: true });
      dither(round);
      await vm.pause();
      expect((await exit).kind).toBe('interrupted');
    }
  });
});
