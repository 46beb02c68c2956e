import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { decodePic } from '../../../lib/cpu/irqchip.js';
import { decodeLapic, lapicVectors } from '../../../lib/cpu/lapic.js';
import { SnapshotStore, type Vm } from '../../../lib/index.js';
import type { RawMachineState } from '../../../lib/native/binding.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { CODE_AT, createCode, outByte, SPIN } from '../support/code.js';
import { HANG_MS, REAL_CLOCK, rounds } from '../support/host.js';
import {
  bootGuest,
  count,
  createGuest,
  setWord,
  stopOf,
  tracked,
  until,
  untilCounted,
  untilReady,
  word,
} from '../support/machines.js';
import { copiesOf } from '../support/restored.js';
import { scratch } from '../support/scratch.js';

const TIMER_VECTOR = 0x40;
const OK = { reason: 'exit-port', code: GUEST_ABI.EXIT_OK } as const;

/** Boots a guest whose interrupt is pending, with interrupts off, and waits until it says so. */
async function bootWaiting(name: 'pit' | 'lapic', rsi: bigint): Promise<Vm> {
  const vm = await createGuest(name, { irqchip: true, regs: { rsi } });
  await vm.start();
  await until('an interrupt is pending', () => {
    expect(vm.status).toBe('running');
    return word(vm, GUEST_ABI.PHASE) === BigInt(GUEST_ABI.PHASE_WAITING);
  });
  return vm;
}

/** Lets a guest take its interrupt: it ends with OK if that comes exactly once. */
async function expectOnce(vm: Vm): Promise<void> {
  setWord(vm, GUEST_ABI.COMMAND, GUEST_ABI.COMMAND_GO);
  if (vm.status !== 'running') await vm.resume();
  expect(await stopOf(vm)).toEqual(OK);
  expect(count(vm)).toBe(1n);
}

const hasDeadline = async (vm: Vm): Promise<boolean> =>
  (await vm.vcpus[0]!.getCpuid()).some((leaf) => leaf.function === 1 && (leaf.ecx >>> 24) & 1);

describe('an interrupt that is pending at the instant of the snapshot comes exactly once', () => {
  it('PIT, one shot: in three copies and in the original', async () => {
    for (let round = 0; round < 5; round++) {
      const vm = await bootWaiting('pit', 1n);
      const copies = await copiesOf(vm, 3);
      // In the request register of the PIC, not delivered.
      const state = await copies[0]!.saveState();
      expect(state.vm.pic_master![8 + 1]! & 1).toBe(1);
      for (const machine of [...copies, vm]) {
        expect(count(machine)).toBe(0n);
        await expectOnce(machine);
        await machine.close();
      }
    }
  });

  it('LAPIC timer, one shot: in three copies and in the original', async () => {
    for (let round = 0; round < 5; round++) {
      const vm = await bootWaiting('lapic', 1n);
      const copies = await copiesOf(vm, 3);
      const { irr } = await copies[0]!.vcpus[0]!.getLapic();
      expect(lapicVectors(irr)).toEqual([TIMER_VECTOR]);
      for (const machine of [...copies, vm]) {
        expect(count(machine)).toBe(0n);
        await expectOnce(machine);
        await machine.close();
      }
    }
  });

  it('LAPIC timer in TSC-deadline mode', async (context) => {
    const probe = await createGuest('lapic', { irqchip: true });
    if (!(await hasDeadline(probe))) return context.skip('this KVM has no TSC-deadline timer');
    const vm = await bootWaiting('lapic', 3n);
    const copies = await copiesOf(vm, 2);
    for (const machine of [...copies, vm]) await expectOnce(machine);
  });

  it.each(['pit', 'lapic'] as const)(
    '%s: also when the copy takes it at once, before anything else can happen: 30 copies',
    async (name) => {
      const vm = await bootWaiting(name, 1n);
      await vm.pause();
      setWord(vm, GUEST_ABI.COMMAND, GUEST_ABI.COMMAND_GO);
      const store = await SnapshotStore.open(`${scratch()}/store`, { create: true });
      using snapshot = await vm.snapshot({ store });
      for (let round = 0; round < rounds(30); round++) {
        const copy = tracked(await snapshot.restore());
        await copy.resume();
        // Time for a timer that was started anew.
        await sleep(5);
        expect(await stopOf(copy)).toEqual(OK);
        expect(count(copy)).toBe(1n);
        await copy.close();
      }
    },
  );

  it('through several generations of copies, it is still there', async () => {
    for (const name of ['pit', 'lapic'] as const) {
      let vm = await bootWaiting(name, 1n);
      for (let generation = 0; generation < 5; generation++) {
        const [copy] = await copiesOf(vm, 1);
        await vm.close();
        vm = copy!;
        // It runs a little, with interrupts off.
        await vm.resume();
        await new Promise((resolve) => setImmediate(resolve));
      }
      await expectOnce(vm);
    }
  });

  it('also when the machine was never paused by hand', async () => {
    const vm = await bootWaiting('lapic', 1n);
    const [copy] = await copiesOf(vm, 1, 'resume');
    await expectOnce(vm);
    await expectOnce(copy!);
  });
});

describe('a timer that is still to come', () => {
  it('LAPIC, one shot: comes once, in the copy and in the original', async () => {
    const vm = await bootGuest('lapic', { irqchip: true, regs: { rsi: 2n } });
    const [copy] = await copiesOf(vm, 1, 'resume');
    expect(count(copy!)).toBe(0n);
    await copy!.resume();
    for (const machine of [vm, copy!]) {
      expect(await stopOf(machine)).toEqual(OK);
      expect(count(machine)).toBe(1n);
    }
  });

  it('LAPIC, TSC deadline', async (context) => {
    const vm = await createGuest('lapic', { irqchip: true, regs: { rsi: 4n } });
    if (!(await hasDeadline(vm))) return context.skip('this KVM has no TSC-deadline timer');
    await vm.start();
    await untilReady(vm);
    const [copy] = await copiesOf(vm, 1, 'resume');
    await copy!.resume();
    for (const machine of [vm, copy!]) {
      expect(await stopOf(machine)).toEqual(OK);
      expect(count(machine)).toBe(1n);
    }
  });
});

describe('a periodic timer', () => {
  it.each(['pit', 'lapic'] as const)(
    '%s at 1 kHz ticks on across 25 snapshots, in the copy from where it was',
    async (name) => {
      const vm = await bootGuest(name, { irqchip: true });
      await untilCounted(vm, 5n);
      for (let round = 0; round < rounds(25); round++) {
        const [copy] = await copiesOf(vm, 1, 'resume');
        const before = count(copy!);
        await copy!.resume();
        await untilCounted(copy!, 20n);
        expect(count(copy!)).toBeGreaterThanOrEqual(before + 20n);
        expect(word(copy!, GUEST_ABI.EXTRA)).toBe(0n);
        await copy!.close();
        await untilCounted(vm, 5n);
      }
    },
  );

  it('has the period that it had: PIT ticks at 1 kHz, not more often', REAL_CLOCK, async () => {
    const vm = await bootGuest('pit', { irqchip: true });
    await untilCounted(vm, 5n);
    // From before the restore: what KVM counts before the guest runs, the guest catches up with.
    const begun = performance.now();
    const [copy] = await copiesOf(vm, 1);
    const from = count(copy!);
    await copy!.resume();
    await untilCounted(copy!, 200n);
    const ticks = Number(count(copy!) - from);
    // At least 1193 / 1193182 s each; KVM may have had some to catch up with.
    expect(performance.now() - begun).toBeGreaterThan(ticks - 20);
  });

  it('PIT, pending when interrupts are off: goes on in the copy', async () => {
    const vm = await bootWaiting('pit', 2n);
    const copies = await copiesOf(vm, 2);
    for (const machine of [...copies, vm]) {
      setWord(machine, GUEST_ABI.COMMAND, GUEST_ABI.COMMAND_GO);
      await machine.resume();
      await untilCounted(machine, 20n);
    }
  });
});

describe('a halted guest', () => {
  it('is halted in the copy, and woken by the interrupt it waits for', async () => {
    for (let round = 0; round < rounds(20); round++) {
      const vm = await bootGuest('pit', { irqchip: true });
      const [copy] = await copiesOf(vm, 1);
      await copy!.resume();
      await untilCounted(copy!, 2n);
      await copy!.close();
      await vm.close();
    }
  });
});

describe('the LAPIC state of a snapshot', () => {
  it('of an expired one-shot timer does not start it again', async () => {
    const vm = await bootWaiting('lapic', 1n);
    await vm.pause();
    const { lapic } = (await vm.saveState()).vcpus[0]!;
    expect(decodeLapic(lapic!)).toMatchObject({ timer_initial_count: 0, timer_current_count: 0 });
  });
});

describe('a one-shot of the PIT that is still to come', () => {
  /** Channel 0 counts 54 ms down, once, from when the machine starts; interrupts are off. */
  const code = [...outByte(0x43, 0x30), ...outByte(0x40, 0), ...outByte(0x40, 0xff), ...SPIN];
  const pending = (state: RawMachineState) => (decodePic(state.vm.pic_master!).pic.irr & 1) === 1;
  const programmed = async (vm: Vm): Promise<boolean> => {
    const { rip } = await vm.vcpus[0]!.getRegs();
    return rip === CODE_AT + BigInt(code.length - SPIN.length);
  };

  it('comes in the copy, too', async () => {
    // On a busy machine it may have come before the snapshot: once more, then.
    for (const deadline = performance.now() + HANG_MS; ; ) {
      expect(performance.now(), 'always too slow to look within 54 ms').toBeLessThan(deadline);
      const vm = await createCode(code, { irqchip: true });
      await vm.start();
      await vm.pause();
      while (!(await programmed(vm))) {
        await vm.resume();
        await vm.pause();
      }
      const store = await SnapshotStore.open(`${scratch()}/store`, { create: true });
      using snapshot = await vm.snapshot({ store, tag: 'it' });
      await vm.close();
      using loaded = await store.load('it');
      if (pending(loaded.state)) continue;
      const copy = tracked(await snapshot.restore());
      const comes = async (): Promise<boolean> => {
        await copy.resume();
        await sleep(5);
        await copy.pause();
        return pending(await copy.saveState());
      };
      while (!(await comes())) {
        expect(performance.now(), 'it never comes').toBeLessThan(deadline);
      }
      return;
    }
  });
});
