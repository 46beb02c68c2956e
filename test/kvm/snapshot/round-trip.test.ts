import { describe, expect, it } from 'vitest';
import { type Snapshot, SnapshotStore, type Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import type { GuestName } from '../../../lib/native/guests.js';
import { bootGuest, count, setWord, stopOf, tracked, untilCounted } from '../support/machines.js';
import { bootRing3Smp, bootSmp, untilAllCount } from '../support/multi.js';
import { scratch } from '../support/scratch.js';
import { differences, flatState } from '../support/state.js';

interface Case {
  title: string;
  boot: () => Promise<Vm>;
  /** Guests that check their own registers, and say so when one is wrong. */
  checks?: GuestName;
}

const single = (name: GuestName, ring: 0 | 3, irqchip: boolean): Case => ({
  title: `${name}, ring ${ring}${irqchip ? ', irqchip' : ''}`,
  boot: async () => {
    const vm = await bootGuest(name, { ring, irqchip });
    await untilCounted(vm, 1n, name);
    return vm;
  },
  checks: name,
});

const CASES: Case[] = [
  ...[false, true].flatMap((irqchip) => [
    single('real', 0, irqchip),
    single('protected', 0, irqchip),
    single('protected', 3, irqchip),
    single('registers', 0, irqchip),
    single('registers', 3, irqchip),
  ]),
  { title: 'smp, 3 vCPUs', boot: () => bootSmp(3) },
  { title: 'smp-ring3, 3 vCPUs', boot: () => bootRing3Smp(3) },
  { title: 'smp-ring3, 3 vCPUs, irqchip', boot: () => bootRing3Smp(3, { irqchip: true }) },
  { title: 'pit', boot: () => bootGuest('pit', { irqchip: true }) },
  { title: 'lapic', boot: () => bootGuest('lapic', { irqchip: true }) },
  { title: 'serial-irq', boot: () => bootGuest('serial-irq', { irqchip: true }) },
];

const saved = async (snapshot: Snapshot) => {
  const loaded = await snapshot.store.load(snapshot.digest);
  loaded.close();
  return loaded;
};

describe('saving, restoring and saving again gives the same state', () => {
  it.each(CASES)('$title', async ({ boot, checks }) => {
    const vm = await boot();
    await vm.pause();
    const store = await SnapshotStore.open(`${scratch()}/store`, { create: true, durable: false });
    const snapshot = await vm.snapshot({ store });
    const first = (await saved(snapshot)).state;
    // What the store holds is what the machine has.
    expect(differences(await vm.saveState(), first)).toEqual([]);

    const twin = tracked(await snapshot.restore());
    expect(twin.status).toBe('paused');
    expect(differences(first, await twin.saveState())).toEqual([]);
    expect(flatState(first).size).toBeGreaterThan(300);

    const again = await twin.snapshot({ store });
    const second = await saved(again);
    expect(differences(first, second.state)).toEqual([]);
    expect(second.config.machine).toEqual(await snapshot.config().then(({ machine }) => machine));

    // Memory, too: the same parts at the same addresses.
    const parts = (loaded: typeof second) =>
      [...loaded.extents].map(({ gpa, length, offset, file }) => [gpa, length, offset, file]);
    expect(parts(second)).toEqual(parts(await saved(snapshot)));
    for (const { gpa, size } of twin.memory.slots()) {
      expect(twin.memory.read(gpa, size).equals(vm.memory.read(gpa, size))).toBe(true);
    }

    // The guest finds its registers as they were, in both machines.
    if (checks) {
      for (const machine of [vm, twin]) {
        await machine.resume();
        await untilCounted(machine, 2n, checks);
        setWord(machine, GUEST_ABI.COMMAND, GUEST_ABI.COMMAND_EXIT, checks);
        expect(await stopOf(machine)).toEqual({ reason: 'exit-port', code: GUEST_ABI.EXIT_OK });
        expect(count(machine, checks)).toBeGreaterThan(2n);
      }
    } else if (vm.vcpus.length > 1) {
      for (const machine of [vm, twin]) {
        await machine.resume();
        await untilAllCount(machine);
      }
    }
    snapshot.close();
    again.close();
  });
});

describe('loadState', () => {
  it('puts a state back into the machine it is of', async () => {
    const vm = await bootGuest('registers', { ring: 0, irqchip: true });
    await vm.pause();
    const state = await vm.saveState();
    await vm.vcpus[0]!.setRegs({ rax: 1n, rbx: 2n, r15: 3n });
    await vm.vcpus[0]!.setMsrs([{ index: 0xc0000082, data: 0x1234n }]);
    await vm.vcpus[0]!.setLapic({ tpr: 0x30 });
    const changed = differences(state, await vm.saveState()).map(({ path }) => path);
    expect(changed).toEqual(
      expect.arrayContaining(['vcpus[0].regs.rax', 'vcpus[0].msrs.LSTAR', 'vcpus[0].lapic.tpr']),
    );
    await vm.loadState(state);
    expect(differences(state, await vm.saveState())).toEqual([]);
    await vm.resume();
    await untilCounted(vm, 2n, 'registers');
  });

  it('refuses a state of another number of vCPUs', async () => {
    const one = await bootGuest('counter');
    const two = await bootRing3Smp(2);
    await one.pause();
    await two.pause();
    await expect(two.loadState(await one.saveState())).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_FORMAT',
      message: expect.stringMatching(/1 vCPUs, the machine 2/),
    });
    await two.resume();
    await untilAllCount(two);
  });

  it('refuses a state with an irqchip on a machine without', async () => {
    const plain = await bootGuest('counter');
    const other = await bootGuest('counter', { irqchip: true });
    await plain.pause();
    await other.pause();
    await expect(plain.loadState(await other.saveState())).rejects.toMatchObject({
      code: 'ERR_SNAPSHOT_FORMAT',
    });
  });
});
