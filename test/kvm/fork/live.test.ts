/** Forks of a machine that writes as fast as it can, and whose dirty pages are tracked meanwhile. */
import { describe, expect, it } from 'vitest';
import type { Vm } from '../../../lib/index.js';
import { MiB } from '../../../lib/units.js';
import { machineFor, TRACKERS_HERE } from '../support/dirtier.js';
import { hangLimit, SLOWDOWN } from '../support/host.js';
import { tracked, until } from '../support/machines.js';
import { differences } from '../support/state.js';
import { bootWriter, cursorOf, inOrder, setSalt, writerFaults } from '../support/writer.js';

/** `KVMSNAP_FORKS=1000` is what a release is tested with. */
const FORKS = Number(process.env.KVMSNAP_FORKS ?? 40 / SLOWDOWN);
const PAGES = 24;
/** Milliseconds from one harvest to the next, so that some fall between a freeze and the next. */
const HARVEST_EVERY = 3;

const allOf = (vm: Vm) => vm.memory.read(0n, MiB(4));

/** Harvests until the machine is closed. Gives the number of epochs, and how it ended. */
function harvests(vm: Vm, tracker: (typeof TRACKERS_HERE)[number]) {
  const seen = { epochs: 0, error: undefined as unknown };
  const loop = async () => {
    for await (const epoch of vm.dirty({ tracker, every: HARVEST_EVERY })) {
      if (epoch.count > 0) seen.epochs++;
    }
  };
  loop().catch((error) => {
    seen.error = error;
  });
  return seen;
}

async function untilWritten(vm: Vm): Promise<void> {
  const before = vm.vcpus.map(({ index }) => cursorOf(vm, index));
  const wrote = () => vm.vcpus.every(({ index }, i) => cursorOf(vm, index) > before[i]! + 1n);
  await until('every vCPU writes on', wrote);
}

/** Parent and child at one instant, and that neither shows in the other from then on. */
async function expectTwins(vm: Vm): Promise<void> {
  await vm.pause();
  const [fork] = (await vm.fork()) as [Vm];
  const instant = allOf(vm);
  expect(allOf(fork).equals(instant)).toBe(true);
  expect(differences(await vm.saveState(), await fork.saveState())).toEqual([]);
  for (const { index } of fork.vcpus) setSalt(fork, 7n, index);
  await fork.resume();
  await untilWritten(fork);
  await fork.pause();
  expect(allOf(vm).equals(instant)).toBe(true);
  const later = allOf(fork);
  await vm.resume();
  await untilWritten(vm);
  expect(allOf(fork).equals(later)).toBe(true);
  expect(writerFaults(fork, PAGES)).toEqual([]);
  await fork.close();
}

describe.each([1, 2])('forks of a writer with %i vCPUs', (vcpus) => {
  it.each([undefined, ...TRACKERS_HERE])(
    `tracked by %s: ${FORKS}, each with exactly the memory of one instant`,
    async (tracker) => {
      const options = { vcpus, memory: MiB(4), ...(tracker ? machineFor(tracker) : {}) };
      const vm = await bootWriter(PAGES, options);
      const seen = tracker ? harvests(vm, tracker) : undefined;
      if (seen) await until('the first harvest', () => seen.epochs > 0 || seen.error !== undefined);
      const expectNext = inOrder(PAGES);
      for (let round = 0; round < FORKS; round++) {
        const [fork] = (await vm.fork()) as [Vm];
        expect([vm.status, fork.status]).toEqual(['running', 'paused']);
        expectNext(fork);
        await fork.close();
        if (round % 10 === 9) await expectTwins(vm);
      }
      await untilWritten(vm);
      const epochs = seen?.epochs;
      if (seen) await until('the next harvest', () => seen.epochs > epochs! || !!seen.error);
      expect(seen?.error).toBeUndefined();
      await vm.pause();
      expect(writerFaults(vm, PAGES)).toEqual([]);
      const last = tracked((await vm.fork())[0]!);
      expect(allOf(last).equals(allOf(vm))).toBe(true);
    },
    hangLimit(FORKS, 100),
  );
});
