/** Instants at which nobody waits for the timer: while it runs, expires, is noticed by KVM, is served. */
import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { rounds } from '../support/host.js';
import {
  bootGuest,
  count,
  createGuest,
  tracked,
  until,
  untilCounted,
  word,
} from '../support/machines.js';

const ONE_SHOT = 0n;
const PERIODIC = 1n;
const DEADLINE = 2n;
const ONE_ONLY = 3n;

const hasDeadline = async (vm: Vm): Promise<boolean> =>
  (await vm.vcpus[0]!.getCpuid()).some((leaf) => leaf.function === 1 && (leaf.ecx >>> 24) & 1);

/** That it ticks on, and that no tick came early: one that was delivered twice. */
async function expectTicks(vm: Vm): Promise<void> {
  await untilCounted(vm, 3n);
  expect(word(vm, GUEST_ABI.ERRORS)).toBe(0n);
}

describe('at whatever instant a machine is saved', () => {
  it.for([
    ['one-shots', ONE_SHOT],
    ['a periodic timer', PERIODIC],
    ['TSC deadlines', DEADLINE],
  ] as const)(
    '%s: the next tick comes once, in every copy and in the source',
    async ([, mode], context) => {
      if (
        mode === DEADLINE &&
        !(await hasDeadline(await createGuest('ticks', { irqchip: true })))
      ) {
        return context.skip('this KVM has no TSC-deadline timer');
      }
      const vm = await bootGuest('ticks', { irqchip: true, regs: { rsi: mode } });
      await untilCounted(vm, 3n);
      for (let round = 0; round < rounds(120); round++) {
        await sleep(Math.random() * 3);
        // What a paused machine's first save found out, the second must know.
        const paused = round % 4 === 0;
        if (paused) await vm.pause();
        const copies = (await vm.fork(1)).map(tracked);
        if (paused) copies.push(...(await vm.fork(1)).map(tracked));
        if (paused) await vm.resume();
        for (const copy of copies) {
          await copy.resume();
          await expectTicks(copy);
          await copy.close();
        }
        await expectTicks(vm);
      }
    },
  );

  it('a one-shot that was served long ago does not come again', async () => {
    const vm = await bootGuest('ticks', { irqchip: true, regs: { rsi: ONE_ONLY } });
    await until('it has ticked', () => count(vm) === 1n);
    for (let round = 0; round < rounds(20); round++) {
      const [copy] = (await vm.fork(1)).map(tracked);
      await copy!.resume();
      await sleep(5);
      for (const machine of [vm, copy!]) {
        await machine.pause();
        expect(count(machine)).toBe(1n);
        expect(word(machine, GUEST_ABI.ERRORS)).toBe(0n);
      }
      await copy!.close();
      await vm.resume();
    }
  });
});
