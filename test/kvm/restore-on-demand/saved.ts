/** Snapshots for the tests of this folder, and sources that give their memory. */
import { onTestFinished } from 'vitest';
import {
  type PageSource,
  type PagingOptions,
  type Snapshot,
  SnapshotStore,
  type Vm,
} from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import {
  type BootOptions,
  bootGuest,
  count,
  setWord,
  tracked,
  until,
} from '../support/machines.js';
import { scratch } from '../support/scratch.js';

export const newStore = (): Promise<SnapshotStore> =>
  SnapshotStore.open(`${scratch()}/store`, { create: true, durable: false });

/** A snapshot of a machine whose whole memory is a pattern that its guest can verify. */
export async function savedPattern(options: BootOptions = {}): Promise<Snapshot> {
  const vm = await bootGuest('pattern', options);
  const snapshot = await vm.snapshot({ store: await newStore(), tag: 'warm', then: 'stop' });
  onTestFinished(() => snapshot.close());
  return snapshot;
}

export async function onDemand(snapshot: Snapshot, paging: PagingOptions = {}): Promise<Vm> {
  return tracked(await snapshot.restore({ paging }));
}

/** Lets the guest verify all of its memory. */
export async function verified(vm: Vm): Promise<void> {
  await vm.pageIn({ gpa: GUEST_ABI.DATA, length: 4096 });
  const passes = count(vm);
  setWord(vm, GUEST_ABI.COMMAND, GUEST_ABI.COMMAND_GO);
  await vm.start();
  await until('the guest verifies its memory', () => {
    if (vm.status !== 'running') throw new Error(`the machine is ${vm.status}`);
    return count(vm) > passes;
  });
}

/** Gives a snapshot's memory as JavaScript, from a machine that has all of it. */
export async function sourceOf(
  snapshot: Snapshot,
  before: (gpa: bigint, length: number, signal: AbortSignal) => unknown = () => undefined,
): Promise<PageSource & { asked: { gpa: bigint; length: number }[] }> {
  const whole = tracked(await snapshot.restore());
  const asked: { gpa: bigint; length: number }[] = [];
  return {
    asked,
    async read(gpa, length, signal) {
      asked.push({ gpa, length });
      await before(gpa, length, signal);
      return whole.memory.read(gpa, length);
    },
  };
}
