/** Guests that firmware booted and that halt for good, as Linux does after `halt`. */
import { expect, it } from 'vitest';
import { Pool, type Vm } from '../../../lib/index.js';
import { MiB } from '../../../lib/units.js';
import { bzImage } from '../../unit/boot/support.js';
import { createCode, outByte } from '../support/code.js';
import { createVm, tracked } from '../support/machines.js';

const ENTRY_IN_FILE = 1024 + 0x200;
const CLI = 0xfa;
const HLT = 0xf4;
/** Says that it halts, and does: an NMI would find it halting again. */
const HALT = [...outByte(0x3f8, 0x2e), CLI, HLT, 0xeb, 0xfd];

async function boot(code: readonly number[], vcpus = 1): Promise<Vm> {
  const kernel = bzImage();
  kernel.set(code, ENTRY_IN_FILE);
  return createVm({ kernel, memory: MiB(32), vcpus });
}

/** A second without use of a device, and up to one until that is noticed. */
it('A kernel that halts with interrupts off ends its machine, and every copy of it', async () => {
  const vm = await boot(HALT);
  // The second vCPU waits to be started, and nobody can.
  const two = await boot(HALT, 2);
  const [fork] = await vm.fork(1);
  tracked(fork!);
  const snapshot = await vm.snapshot();
  await using pool = await Pool.create(snapshot, { size: 1 });
  const pooled = await pool.get();
  const halted = { reason: 'halt' };
  const stopOf = async (each: Vm): Promise<unknown> => {
    await each.start();
    return each.wait();
  };
  expect(await Promise.all([vm, two, fork!, pooled].map(stopOf))).toEqual(Array(4).fill(halted));
  expect([vm, two].map(({ status }) => status)).toEqual(['stopped', 'stopped']);
  await fork!.reset();
  expect(await stopOf(fork!)).toEqual(halted);
  await pooled.close();
  snapshot.close();
});

it('A machine runs on whose guest may go on', async () => {
  const STI = 0xfb;
  const LOOP = [0xeb, 0xfe];
  const dot = outByte(0x3f8, 0x2e);
  const vms = [
    // Idle: an interrupt would wake it. It has no handler, and gets none.
    await boot([...dot, STI, HLT]),
    await boot([...dot, CLI, ...LOOP]),
    // One that no firmware booted: the host may change it.
    await createCode([...dot, CLI, HLT], { irqchip: true }),
  ];
  for (const vm of vms) await vm.start();
  // As long as others take to be found halted, twice.
  for (let round = 0; round < 2; round++) {
    const vm = await boot(HALT);
    await vm.start();
    expect(await vm.wait()).toEqual({ reason: 'halt' });
  }
  expect(vms.map(({ status }) => status)).toEqual(['running', 'running', 'running']);
});
