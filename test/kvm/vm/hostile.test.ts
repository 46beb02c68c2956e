import { setTimeout as sleep } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import type { StopInfo, Vm } from '../../../lib/index.js';
import { EMULATED_RING0, SLOWDOWN } from '../support/host.js';
import { bootGuest, createGuest, stopOf, untilCounted } from '../support/machines.js';

/**
 * What becomes of a machine: its guest runs on (or is halted, and could be woken) until it is paused;
 * it ends by itself; or KVM cannot go on with it.
 */
type Outcome = 'runs' | 'shutdown' | 'halt' | 'reset' | 'power-off' | 'crash';

interface Way {
  /** The number of the way in native/guest/hostile.S: rsi. */
  rsi: number;
  what: string;
  ring0: Outcome[] | { irqchip: Outcome[]; plain: Outcome[] };
  ring3: Outcome[] | { irqchip: Outcome[]; plain: Outcome[] };
}

// Faults in ring 3 end in a triple fault: there is no handler.
const WAYS: Way[] = [
  { rsi: 0, what: 'loops for ever', ring0: ['runs'], ring3: ['runs'] },
  { rsi: 1, what: 'makes a triple fault', ring0: ['shutdown'], ring3: ['shutdown'] },
  {
    rsi: 2,
    what: 'halts with interrupts off',
    ring0: { irqchip: ['runs'], plain: ['halt'] },
    ring3: ['shutdown'],
  },
  { rsi: 3, what: 'uses bad MSRs', ring0: ['runs'], ring3: ['shutdown'] },
  {
    rsi: 4,
    what: 'writes junk to every port',
    // Ports 0x64, 0x600 and others are there to end a machine.
    ring0: ['runs', 'reset', 'power-off'],
    ring3: ['runs', 'reset', 'power-off'],
  },
  {
    rsi: 5,
    what: 'jumps to where no memory is',
    ring0: ['crash', 'shutdown'],
    ring3: ['crash', 'shutdown'],
  },
  { rsi: 6, what: 'executes ud2 for ever', ring0: ['runs'], ring3: ['shutdown'] },
  { rsi: 7, what: 'reads every port', ring0: ['runs'], ring3: ['runs'] },
  { rsi: 8, what: 'uses the MMIO hole', ring0: ['runs'], ring3: ['runs'] },
  { rsi: 9, what: 'outputs strings', ring0: ['runs'], ring3: ['runs'] },
  {
    rsi: 10,
    what: 'pushes beyond its stack',
    // In the instruction emulator it may take longer to get to the end than it has.
    ring0: EMULATED_RING0 ? ['crash', 'shutdown', 'runs'] : ['crash', 'shutdown'],
    ring3: ['crash', 'shutdown'],
  },
  {
    rsi: 11,
    what: 'breaks its page tables',
    ring0: ['crash', 'shutdown'],
    ring3: ['shutdown'],
  },
  {
    rsi: 12,
    what: 'executes int3 for ever',
    // KVM's instruction emulator has no int3.
    ring0: EMULATED_RING0 ? ['crash'] : ['runs'],
    ring3: ['shutdown', 'crash'],
  },
  {
    rsi: 13,
    what: 'halts with interrupts on',
    ring0: { irqchip: ['runs'], plain: ['halt'] },
    ring3: ['shutdown'],
  },
  {
    rsi: 14,
    what: 'sends INIT and NMI IPIs',
    ring0: ['runs'],
    // The LAPIC is not ring 3's to touch.
    ring3: ['shutdown'],
  },
];

/** How long a guest has its way that may run on for ever. */
const RAMPAGE_MS = 150 * Math.min(SLOWDOWN, 4);

/** Lets the guest loose, and says what became of its machine: one that has to end is waited for. */
async function rampage(vm: Vm, mayRunOn: boolean): Promise<Outcome> {
  await vm.start();
  const stop = mayRunOn ? await Promise.race([vm.wait(), sleep(RAMPAGE_MS)]) : await stopOf(vm);
  const ended = (info: StopInfo): Outcome => {
    if (info.reason !== 'error') return info.reason as Outcome;
    expect(info.error).toMatchObject({ code: 'ERR_GUEST_CRASH' });
    expect(vm.status).toBe('poisoned');
    return 'crash';
  };
  if (stop) return ended(stop);
  try {
    await vm.pause();
  } catch {
    // It ended in the meantime.
    return ended(await vm.wait());
  }
  if (vm.status === 'stopped') return ended(await vm.wait());
  expect(vm.status).toBe('paused');
  expect((await vm.vcpus[0]!.getRegs()).rip).toBeTypeOf('bigint');
  return 'runs';
}

const variants = WAYS.flatMap(({ rsi, what, ring0, ring3 }) =>
  ([0, 3] as const).flatMap((ring) =>
    ([false, true] as const).map((irqchip) => {
      const outcomes = ring === 0 ? ring0 : ring3;
      return {
        title: `${what}: ring ${ring}${irqchip ? ', irqchip' : ''}`,
        rsi: BigInt(rsi),
        ring,
        irqchip,
        vcpus: irqchip && rsi === 14 ? 2 : 1,
        outcomes: Array.isArray(outcomes) ? outcomes : outcomes[irqchip ? 'irqchip' : 'plain'],
      };
    }),
  ),
);

describe('the host stays in control of a guest that', () => {
  for (const { title, rsi, ring, irqchip, vcpus, outcomes } of variants) {
    it(title, async () => {
      const vm = await createGuest('hostile', { ring, irqchip, vcpus, regs: { rsi } });
      expect(outcomes).toContain(await rampage(vm, outcomes.includes('runs')));
      await vm.kill();
      await vm.close();
    });
  }

  it('does any of these: Node is alive, and KVM runs the next guest', async () => {
    const vm = await bootGuest('counter', { regs: { rsi: 64n } });
    await untilCounted(vm);
  });
});
