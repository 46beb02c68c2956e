import { describe, expect, it } from 'vitest';
import { SnapshotStore, type Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { MiB } from '../../../lib/units.js';
import { rounds } from '../support/host.js';
import {
  bootGuest,
  count,
  createGuest,
  setWord,
  stopOf,
  tracked,
  until,
  untilCounted,
} from '../support/machines.js';
import { bootRing3Smp, line, untilAllCount } from '../support/multi.js';
import { createPorts, untilPass } from '../support/ports.js';
import { scratch } from '../support/scratch.js';
import { differences } from '../support/state.js';
import { bootWriter, writerFaults } from '../support/writer.js';

const allOf = (vm: Vm, size = MiB(16)) => Buffer.from(vm.memory.read(0n, size));

describe('reset', () => {
  it.each([
    ['least', { irqchip: false }],
    ['full', { irqchip: true }],
  ])('of the %s machine puts back all memory and state, 50 times', async (_, options) => {
    const vm = await bootWriter(200, options);
    await vm.pause();
    using snapshot = await vm.snapshot();
    const state = await vm.saveState();
    const memory = allOf(vm);
    for (let round = 0; round < rounds(50); round++) {
      await vm.resume();
      await untilCounted(vm, 1n, 'writer');
      if (round % 2 === 0) await vm.pause();
      vm.memory.write(BigInt(MiB(12)), Buffer.alloc(8192, round + 1));
      await vm.reset(snapshot);
      expect(vm.status).toBe('paused');
      expect(allOf(vm).equals(memory)).toBe(true);
      expect(differences(state, await vm.saveState())).toEqual([]);
    }
    await vm.resume();
    await untilCounted(vm, 2n, 'writer');
  });

  it('to a snapshot that is closed meanwhile happens, or does not, and can be done again', async () => {
    const vm = await createGuest('counter');
    const mark = (machine: Vm) => machine.memory.read(BigInt(MiB(12)), 3).toString();
    vm.memory.write(BigInt(MiB(12)), Buffer.from('ONE'));
    using one = await vm.snapshot();
    vm.memory.write(BigInt(MiB(12)), Buffer.from('TWO'));
    for (let round = 0; round < 24; round++) {
      const two = await vm.snapshot();
      const machine = tracked(await one.restore());
      const reset = machine.reset(two).then(
        () => undefined,
        (error: unknown) => error,
      );
      // From before its first await until it is through.
      for (let turn = 0; turn < round % 12; turn++) await Promise.resolve();
      if (round % 2) await new Promise((resolve) => setImmediate(resolve));
      two.close();
      const error = await reset;
      if (error) expect(error).toMatchObject({ code: 'ERR_CLOSED' });
      expect(mark(machine)).toBe(error ? 'ONE' : 'TWO');
      const there = mark(machine);
      machine.memory.write(BigInt(MiB(12)), Buffer.from('XXX'));
      await machine.reset();
      expect(mark(machine)).toBe(there);
      await machine.close();
    }
  });

  it('gives the same exits, registers and memory for the same input, every time', async () => {
    const vm = await createGuest('touch', { ring: 3, regs: { r15: 300n } });
    using snapshot = await vm.snapshot();
    const run = async () => {
      const exits: unknown[] = [];
      for (let i = 0; i < 4; i++) exits.push(await vm.vcpus[0]!.run());
      return { exits, regs: await vm.vcpus[0]!.getRegs(), memory: allOf(vm) };
    };
    const first = await run();
    for (let round = 0; round < rounds(200); round++) {
      await vm.reset(snapshot);
      const { exits, regs, memory } = await run();
      expect(exits).toEqual(first.exits);
      expect(regs).toEqual(first.regs);
      expect(memory.equals(first.memory)).toBe(true);
    }
  });

  it('goes to whichever snapshot is named: forth and back between three', async () => {
    const pages = 100;
    const store = await SnapshotStore.open(`${scratch()}/store`, { create: true, durable: false });
    const vm = await bootWriter(pages);
    const snapshots = [];
    for (let i = 0; i < 3; i++) {
      await untilCounted(vm, 2n, 'writer');
      const snapshot =
        i === 1
          ? await vm.snapshot({ store, then: 'pause' })
          : await vm.snapshot({ then: 'pause' });
      snapshots.push({ snapshot, memory: allOf(vm) });
      await vm.resume();
    }
    for (let round = 0; round < rounds(30); round++) {
      const { snapshot, memory } = snapshots[(round * 2) % 3]!;
      await vm.reset(snapshot);
      expect(allOf(vm).equals(memory)).toBe(true);
      expect(writerFaults(vm, pages)).toEqual([]);
      await vm.resume();
      await untilCounted(vm, 1n, 'writer');
    }
    for (const { snapshot } of snapshots) snapshot.close();
  });

  it('without a snapshot goes to the one that the machine came from', async () => {
    const vm = await bootWriter(32);
    await expect(vm.reset()).rejects.toMatchObject({ code: 'ERR_STATE' });
    const [fork] = (await vm.fork()) as [Vm];
    tracked(fork);
    const memory = allOf(fork);
    await vm.close();
    for (let round = 0; round < rounds(20); round++) {
      await fork.resume();
      await untilCounted(fork, 1n, 'writer');
      await fork.reset();
      expect(allOf(fork).equals(memory)).toBe(true);
    }
  });

  it('heals a machine that was killed in the middle of its run', async () => {
    const vm = await bootWriter(64);
    using snapshot = await vm.snapshot({ then: 'pause' });
    const memory = allOf(vm);
    for (let round = 0; round < rounds(30); round++) {
      await vm.resume();
      await vm.kill();
      expect(vm.status).toBe('poisoned');
      await vm.reset(snapshot);
      expect(vm.status).toBe('paused');
      expect(allOf(vm).equals(memory)).toBe(true);
    }
    await vm.resume();
    await untilCounted(vm, 2n, 'writer');
  });

  it('heals one whose handler never answered, and one whose handler threw', async () => {
    const vm = await createGuest('touch', {
      ring: 3,
      regs: { r15: 3n },
      devices: { debugPort: false },
    });
    using snapshot = await vm.snapshot();
    let answer: () => Promise<void> = () => new Promise(() => {});
    let asked = 0;
    vm.claimPorts({
      base: GUEST_ABI.PORT_READY,
      write: () => {
        asked++;
        return answer();
      },
    });
    for (let round = 0; round < rounds(10); round++) {
      await vm.resume();
      await until('the guest asks', () => asked > round);
      await vm.kill();
      await vm.reset(snapshot);
    }
    answer = () => Promise.reject(new Error('no'));
    await vm.resume();
    expect((await stopOf(vm)).reason).toBe('error');
    await vm.reset(snapshot);
    answer = () => Promise.resolve();
    let passed = 0;
    const passes = vm.claimPorts({
      base: GUEST_ABI.PORT_PASS,
      write: () => {
        passed++;
      },
    });
    await vm.resume();
    await until('the guest goes on', () => passed > 1);
    await vm.pause();
    expect(vm.status).toBe('paused');
    passes.release();
  });

  it('of a machine that stopped: it stops again, and wait() tells each time', async () => {
    const vm = await createGuest('writer', { regs: { r15: 4n } });
    setWord(vm, GUEST_ABI.COMMAND, GUEST_ABI.COMMAND_EXIT, 'writer');
    using snapshot = await vm.snapshot();
    for (let round = 0; round < rounds(10); round++) {
      await vm.start();
      const stop = await stopOf(vm);
      expect(vm.status).toBe('stopped');
      await vm.reset(snapshot);
      expect(stop.reason).toBe('exit-port');
    }
  });

  it('while the PIT ticks leaves no tick of the life before', async () => {
    // Channel 0 as a rate generator at some 12 kHz; KVM ticks every 200 us.
    const vm = await createPorts(
      [
        { op: 'out', size: 1, port: 0x43, value: 0x34 },
        { op: 'out', size: 1, port: 0x40, value: 100 },
        { op: 'out', size: 1, port: 0x40, value: 0 },
      ],
      { irqchip: true, memory: MiB(4) },
    );
    using snapshot = await vm.snapshot();
    const state = await vm.saveState();
    for (let round = 0; round < rounds(300); round++) {
      await vm.start();
      await untilPass(vm, 1n);
      await vm.reset(snapshot);
      expect(differences(state, await vm.saveState())).toEqual([]);
    }
  });

  it('with several vCPUs, while they run', async () => {
    const vm = await bootRing3Smp(2);
    using snapshot = await vm.snapshot({ then: 'pause' });
    const before = [count(vm), line(vm, 0), line(vm, 1)];
    for (let round = 0; round < rounds(40); round++) {
      await vm.resume();
      await untilAllCount(vm);
      await vm.reset(snapshot);
      expect([count(vm), line(vm, 0), line(vm, 1)]).toEqual(before);
    }
  });

  it('is refused for a machine of another kind, which stays as it was', async () => {
    const vm = await bootGuest('counter');
    const memory = await createGuest('counter', { memory: MiB(32) });
    const devices = await createGuest('counter', { devices: { cmos: false } });
    const vcpus = await createGuest('counter', { vcpus: 2 });
    for (const other of [memory, devices, vcpus]) {
      using snapshot = await other.snapshot();
      await expect(vm.reset(snapshot)).rejects.toMatchObject({ code: 'ERR_STATE' });
      expect(vm.status).toBe('running');
    }
    await untilCounted(vm);
    await vm.close();
    using snapshot = await memory.snapshot();
    await expect(vm.reset(snapshot)).rejects.toMatchObject({ code: 'ERR_CLOSED' });
  });
});
