import { readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { Pool, type Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { MiB } from '../../../lib/units.js';
import { rounds } from '../support/host.js';
import { Sent } from '../support/lines.js';
import {
  bootGuest,
  count,
  createGuest,
  setWord,
  stopOf,
  until,
  untilCounted,
} from '../support/machines.js';
import { differences } from '../support/state.js';
import { bootWriter, salts, writerFaults } from '../support/writer.js';

const openFiles = () => readdirSync('/proc/self/fd').length;
const allOf = (vm: Vm) => Buffer.from(vm.memory.read(0n, MiB(16)));

async function writerPool(pages: number, options: { size?: number; max?: number } = {}) {
  const vm = await bootWriter(pages);
  using snapshot = await vm.snapshot({ then: 'pause' });
  const pool = await Pool.create(snapshot, options);
  await vm.close();
  return pool;
}

describe('a pool', () => {
  it('hands out machines at the instant of the snapshot, 100 times the same ones', async () => {
    await using pool = await writerPool(64, { size: 2 });
    let memory: Buffer | undefined;
    let state: Awaited<ReturnType<Vm['saveState']>> | undefined;
    for (let round = 0; round < rounds(100); round++) {
      const vm = await pool.get();
      expect(vm.status).toBe('paused');
      memory ??= allOf(vm);
      state ??= await vm.saveState();
      expect(allOf(vm).equals(memory)).toBe(true);
      expect(differences(state, await vm.saveState())).toEqual([]);
      await vm.resume();
      await untilCounted(vm, 1n, 'writer');
      await vm.close();
      expect(vm.status).toBe('closed');
      expect(() => vm.memory.read(0n, 8)).toThrow(expect.objectContaining({ code: 'ERR_CLOSED' }));
      await expect(vm.pause()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    }
    // Two, one more for each that was still being recycled when the next was wanted.
    expect(pool.stats.made).toBeLessThanOrEqual(6);
    expect(pool.stats.discarded).toBe(0);
    expect(pool.stats.handedOut).toBe(rounds(100));
  });

  it("shows no one's secret to the next: RAM, registers, FPU, streams, claims", async () => {
    await using pool = await writerPool(16, { size: 1, max: 1 });
    let first: unknown;
    let devices: unknown;
    for (let round = 1; round <= rounds(30); round++) {
      const secret = Buffer.from(`secret of owner ${round}: ${'x'.repeat(40)}`);
      const vm = await pool.get();
      const found = allOf(vm);
      for (let other = 1; other < round; other++) {
        expect(found.includes(`secret of owner ${other}:`)).toBe(false);
      }
      const regs = await vm.vcpus[0]!.getRegs();
      first ??= regs;
      expect(regs).toEqual(first);
      const xsave = await vm.vcpus[0]!.get('xsave2');
      expect(JSON.stringify(xsave, (_, v) => (typeof v === 'bigint' ? `${v}` : v))).not.toContain(
        'secret',
      );
      const state = (await vm.saveState()).devices;
      devices ??= state;
      expect(state).toEqual(devices);
      const heard: Buffer[] = [];
      vm.debug.on('data', (bytes) => heard.push(bytes));
      vm.console.on('data', (bytes) => heard.push(bytes));
      await new Promise((resolve) => setImmediate(resolve));
      expect(heard).toEqual([]);

      for (const at of [MiB(4), MiB(10), MiB(15)]) vm.memory.write(BigInt(at), secret);
      await vm.vcpus[0]!.setRegs({ r9: BigInt(round) });
      vm.console.write(secret);
      // Would be refused if the one before had kept it.
      vm.claimPorts({ base: 0x700, read: () => round });
      await vm.close();
    }
  });

  it("no guest reads what was typed into another owner's console", async () => {
    const vm = await bootGuest('serial-irq', { irqchip: true });
    using snapshot = await vm.snapshot({ then: 'pause' });
    await using pool = await Pool.create(snapshot, { size: 1, max: 1 });
    for (let round = 0; round < rounds(20); round++) {
      const taken = await pool.get();
      const echo = new Sent(taken);
      const own = `owner ${round}`;
      taken.console.write(own);
      await taken.resume();
      await until('it is echoed', () => echo.text.length >= own.length);
      expect(echo.text).toBe(own);
      expect(count(taken)).toBeGreaterThan(0n);
      // More than the FIFO holds, which the guest does not read any more.
      await taken.pause();
      taken.console.write(`secret of owner ${round}, which is long`);
      expect(Number((await taken.saveState()).devices.serial!.rx_count)).toBe(16);
      await taken.close();
    }
  });

  it('waits when all are taken, in order, and gives up when told to', async () => {
    await using pool = await writerPool(16, { size: 1, max: 2 });
    const [a, b] = [await pool.get(), await pool.get()];
    const order: number[] = [];
    const noted = (vm: Vm, number: number) => {
      order.push(number);
      return vm;
    };
    const third = pool.get().then((vm) => noted(vm, 3));
    const abort = new AbortController();
    const fourth = pool.get({ signal: abort.signal });
    const fifth = pool.get().then((vm) => noted(vm, 5));
    expect(pool.stats).toMatchObject({ taken: 2, waiting: 3 });
    abort.abort();
    await expect(fourth).rejects.toMatchObject({ code: 'ERR_ABORTED' });
    await a.close();
    await (await third).close();
    await b.close();
    await (await fifth).close();
    expect(order).toEqual([3, 5]);
  });

  it('heals what its users leave: killed, stopped, waiting for a handler, changed', async () => {
    await using pool = await writerPool(16, { size: 1, max: 1 });
    for (let round = 0; round < Math.max(10, rounds(20)); round++) {
      const vm = await pool.get();
      expect(writerFaults(vm, 16)).toEqual([]);
      expect(salts(vm, 16)).toEqual(new Set([0n]));
      setWord(vm, GUEST_ABI.SALT, BigInt(round + 1));
      switch (round % 5) {
        case 0:
          await vm.resume();
          await untilCounted(vm, 1n, 'writer');
          break;
        case 1:
          await vm.resume();
          await vm.kill();
          break;
        case 2:
          setWord(vm, GUEST_ABI.COMMAND, GUEST_ABI.COMMAND_EXIT, 'writer');
          await vm.resume();
          await stopOf(vm);
          break;
        case 3:
          await vm.memory.addSlot({ slot: 9, gpa: BigInt(MiB(64)), size: 4096 });
          break;
        default:
          await vm.memory.setSlotFlags(0, { logDirtyPages: true });
      }
      await vm.close();
    }
    expect(pool.stats.discarded).toBeGreaterThan(0);
  });

  it('whose machines wait for handlers that answer too late', async () => {
    const vm = await createGuest('touch', { ring: 3, devices: { debugPort: false } });
    using snapshot = await vm.snapshot();
    await using pool = await Pool.create(snapshot, { size: 1, max: 1 });
    const late: (() => void)[] = [];
    for (let round = 0; round < rounds(20); round++) {
      const taken = await pool.get();
      let asked = false;
      taken.claimPorts({
        base: GUEST_ABI.PORT_READY,
        write: () => {
          asked = true;
          return new Promise((resolve) => late.push(resolve));
        },
      });
      await taken.resume();
      await until('the guest asks', () => asked);
      await taken.close();
      for (const answer of late.splice(0)) answer();
    }
  });

  it('leaves nothing when it is closed, with machines taken and calls that wait', async () => {
    const files = openFiles();
    const pool = await writerPool(16, { size: 3, max: 3 });
    const taken = [await pool.get(), await pool.get(), await pool.get()];
    const waiting = pool.get();
    const closed = pool.close();
    await expect(waiting).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    await closed;
    await taken[0]!.resume();
    for (const vm of taken) await vm.close();
    await until('all is closed', () => openFiles() <= files);
    await expect(pool.get()).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });

  it.each([[{ size: -1 }], [{ size: 1.5 }], [{ max: 0 }], [{ size: 5, max: 4 }]])(
    'cannot be made with %j',
    async (options) => {
      const vm = await createGuest('counter');
      using snapshot = await vm.snapshot();
      await expect(Pool.create(snapshot, options)).rejects.toMatchObject({
        code: 'ERR_INVALID_ARGUMENT',
      });
    },
  );
});
