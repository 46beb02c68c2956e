/** PICs and IOAPIC are at the instant, whatever was raised in the life before. */
import { describe, expect, it } from 'vitest';
import { type MemorySnapshot, Pool, type Vm } from '../../../lib/index.js';
import type { RawMachineState } from '../../../lib/native/binding.js';
import { createCode, outByte, SPIN, u32 } from '../support/code.js';
import { bootGuest, until, untilCounted } from '../support/machines.js';
import { differences } from '../support/state.js';

/** Inputs of the IOAPIC; the first 16 are the PICs' as well, from 8 on the slave's. */
const INPUTS = 24;

/** PICs as firmware sets them up, all inputs open, some of them level-triggered (ports 0x4d0, 0x4d1). */
const PICS_IN_USE = [
  ...[0x11, 0x20, 0x04, 0x01, 0x00].flatMap((value, i) => outByte(i === 0 ? 0x20 : 0x21, value)),
  ...[0x11, 0x28, 0x02, 0x01, 0x00].flatMap((value, i) => outByte(i === 0 ? 0xa0 : 0xa1, value)),
  ...outByte(0x4d0, 0x20),
  ...outByte(0x4d1, 0x0a),
];

/** What raises inputs: each alone, held or only pulsed, and all. */
const RAISED: readonly { title: string; inputs: readonly number[]; held: boolean }[] = [
  ...[1, 2, 3, 5, 8, 9, 11, 15, 16, 23].flatMap((input) =>
    [true, false].map((held) => ({
      title: `${input} ${held ? 'held' : 'pulsed'}`,
      inputs: [input],
      held,
    })),
  ),
  { title: 'all held', inputs: Array.from({ length: INPUTS }, (_, i) => i), held: true },
];

function raise(vm: Vm, inputs: readonly number[], held: boolean): void {
  for (const input of inputs) {
    vm.setIrqLine(input, true);
    if (!held) vm.setIrqLine(input, false);
  }
}

const READY_AT = 0x9000n;
/** `mov dword [READY_AT], 1` in long mode. */
const SAY_READY = [0xc7, 0x04, 0x25, ...u32(Number(READY_AT)), ...u32(1)];

const GUESTS: readonly { title: string; setUp: readonly number[] }[] = [
  { title: 'as they are made', setUp: [] },
  { title: 'in use', setUp: PICS_IN_USE },
];

describe.each(GUESTS)('PICs and IOAPIC $title', ({ setUp }) => {
  /** A machine whose guest has set them up and spins, with interrupts off. */
  async function origin(): Promise<{ vm: Vm; snapshot: MemorySnapshot; state: RawMachineState }> {
    const vm = await createCode([...setUp, ...SAY_READY, ...SPIN], { irqchip: true });
    await vm.start();
    await until('the guest spins', () => vm.memory.read(READY_AT, 1)[0] === 1);
    await vm.pause();
    return { vm, snapshot: await vm.snapshot(), state: await vm.saveState() };
  }

  it('are as in the state after a reset, whatever was raised before', async () => {
    const { vm, snapshot, state } = await origin();
    for (const { title, inputs, held } of RAISED) {
      raise(vm, inputs, held);
      await vm.reset(snapshot);
      expect(differences(state, await vm.saveState()), title).toEqual([]);
    }
    snapshot.close();
  });

  it('are as in the state that was loaded', async () => {
    const { vm, snapshot, state } = await origin();
    for (const { title, inputs, held } of RAISED) {
      raise(vm, inputs, held);
      await vm.loadState(state);
      expect(differences(state, await vm.saveState()), title).toEqual([]);
    }
    snapshot.close();
  });

  it("are as in the snapshot for a pool's next owner", async () => {
    const { snapshot, state } = await origin();
    await using pool = await Pool.create(snapshot, { size: 1, max: 1 });
    for (const { title, inputs, held } of RAISED) {
      const owned = await pool.get();
      expect(differences(state, await owned.saveState()), title).toEqual([]);
      raise(owned, inputs, held);
      await owned.close();
    }
    expect(pool.stats.discarded).toBe(0);
    snapshot.close();
  });

  it('are in a copy as they were with requests pending, and in a copy of that', async () => {
    const { vm, snapshot } = await origin();
    for (const { title, inputs, held } of RAISED) {
      raise(vm, inputs, held);
      const state = await vm.saveState();
      const [copy] = await vm.fork(1);
      const [next] = await copy!.fork(1);
      for (const one of [copy!, next!]) {
        expect(differences(state, await one.saveState()), title).toEqual([]);
        await one.close();
      }
      await vm.reset(snapshot);
    }
    snapshot.close();
  });
});

it('the PIT ticks on after a reset, though the owner held its input before', async () => {
  const vm = await bootGuest('pit', { irqchip: true });
  await untilCounted(vm, 2n);
  using snapshot = await vm.snapshot({ then: 'pause' });
  const state = await vm.saveState();
  for (const back of [() => vm.reset(snapshot), () => vm.loadState(state)]) {
    vm.setIrqLine(0, true);
    await back();
    await vm.resume();
    await untilCounted(vm, 5n);
    await vm.pause();
  }
});
