import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { EMULATED_RING0, SLOWDOWN } from '../support/host.js';
import { bootGuest, createGuest, untilCounted } from '../support/machines.js';

/** What native/guest/hostile.S does, by rsi. */
const WAYS = [
  'loops for ever',
  'makes a triple fault',
  'halts with interrupts off',
  'reads and writes bad MSRs',
  'writes junk to every port',
  'jumps to where no memory is',
  'executes ud2 for ever',
  'reads every port',
  'reads and writes the MMIO hole',
  'outputs strings to the debug port',
  'pushes until its stack runs out',
  'fills its page tables with junk',
  'executes int3 for ever',
  'halts with interrupts on',
  'sends INIT and NMI IPIs',
];

/** How long it may have its way. */
const RAMPAGE_MS = 150 * Math.min(SLOWDOWN, 3);

const variants = WAYS.flatMap((what, way) =>
  ([0, 3] as const).flatMap((ring) =>
    ([false, true] as const).map((irqchip) => ({
      title: `${what} (ring ${ring}${irqchip ? ', irqchip' : ''})`,
      way,
      ring,
      irqchip,
    })),
  ),
);

describe('the host stays in control of a guest that', () => {
  it.each(variants)('$title', async ({ way, ring, irqchip }) => {
    const vcpus = irqchip && way === 14 ? 2 : 1;
    const vm = await createGuest('hostile', { ring, irqchip, vcpus, regs: { rsi: BigInt(way) } });
    let stop: Awaited<ReturnType<typeof vm.wait>> | undefined;
    void vm.wait().then((info) => {
      stop = info;
    });
    await vm.start();
    await Promise.race([vm.wait(), sleep(RAMPAGE_MS)]);

    if (stop === undefined) {
      await vm.pause().catch(() => undefined);
    }
    // It runs on and is paused, or ended in a way that says what happened.
    if (vm.status === 'poisoned') {
      expect(stop).toMatchObject({ reason: 'error', error: { code: 'ERR_GUEST_CRASH' } });
    } else if (vm.status === 'stopped') {
      expect(['shutdown', 'halt', 'reset', 'power-off', 'exit-port']).toContain(stop?.reason);
    } else {
      expect(vm.status).toBe('paused');
      expect((await vm.vcpus[0]!.getRegs()).rip).toBeTypeOf('bigint');
    }
    await vm.kill();
    await vm.close();
  });

  it('executes int3 in ring 3, and says what happened', async () => {
    const vm = await createGuest('hostile', { ring: 3, regs: { rsi: 12n } });
    await vm.start();
    const stop = await vm.wait();
    // No handler: the delivery fails, and so do those of the faults that follow.
    if (EMULATED_RING0) expect(['shutdown', 'error']).toContain(stop.reason);
    else expect(stop).toEqual({ reason: 'shutdown' });
  });

  it('does any of these: Node is alive, and KVM runs the next guest', async () => {
    const vm = await bootGuest('counter', { regs: { rsi: 64n } });
    await untilCounted(vm);
  });
});
