/** Machines for tests: booted with a guest of native/guest, closed when the test is over. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, onTestFinished } from 'vitest';
import { type StopInfo, Vm, type VmOptions } from '../../../lib/index.js';
import { GUEST_ABI, GUEST_MAGIC_VALUE } from '../../../lib/native/guest-abi.js';
import { GUESTS, type GuestInfo, type GuestName, readGuest } from '../../../lib/native/guests.js';
import { MiB } from '../../../lib/units.js';
import { HANG_MS } from './host.js';

export interface BootOptions extends Omit<VmOptions, 'bare'> {
  /** Default: the guest's preferred ring. */
  ring?: 0 | 3;
  /** Registers that the guest's contract names. */
  regs?: { rsi?: bigint; r15?: bigint; rflags?: bigint };
}

/** Closes `vm` at the end of the test, whatever became of it. */
export function tracked(vm: Vm): Vm {
  onTestFinished(() => vm.close());
  return vm;
}

export async function createVm(options: VmOptions): Promise<Vm> {
  return tracked(await Vm.create(options));
}

/** What makes a machine with a guest loaded: 16 MiB without irqchip, unless told otherwise. */
export function guestOptions(name: GuestName, options: Omit<BootOptions, 'regs'> = {}): VmOptions {
  const { ring, ...rest } = options;
  const info: GuestInfo = GUESTS[name];
  return {
    memory: MiB(16),
    irqchip: false,
    ...rest,
    bare: {
      image: readGuest(name),
      mode: info.mode,
      ring: ring ?? (info.rings[0] as 0 | 3),
      ...(info.loadAddress === undefined ? {} : { loadAddress: info.loadAddress }),
    },
  };
}

/** A machine with a guest loaded, not started. */
export async function createGuest(name: GuestName, options: BootOptions = {}): Promise<Vm> {
  const { regs, ...rest } = options;
  const vm = await createVm(guestOptions(name, rest));
  if (regs) await vm.vcpus[0]!.setRegs(regs);
  return vm;
}

/** The same, started, and past its set-up. */
export async function bootGuest(name: GuestName, options: BootOptions = {}): Promise<Vm> {
  const vm = await createGuest(name, options);
  await vm.start();
  await untilReady(vm, name);
  return vm;
}

const dataPage = (name: GuestName): bigint =>
  name === 'real' ? GUEST_ABI.REAL_DATA : GUEST_ABI.DATA;

/** A word of the guest's data page. */
export function word(vm: Vm, offset: number, name: GuestName = 'counter'): bigint {
  return vm.memory.read(dataPage(name) + BigInt(offset), 8).readBigUInt64LE();
}

export function setWord(
  vm: Vm,
  offset: number,
  value: bigint | number,
  name: GuestName = 'counter',
): void {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  vm.memory.write(dataPage(name) + BigInt(offset), bytes);
}

export const count = (vm: Vm, name: GuestName = 'counter'): bigint =>
  word(vm, GUEST_ABI.COUNT, name);

/** Fails when the machine has stopped: nothing more is to be waited for. */
function alive(vm: Vm): boolean {
  if (vm.status === 'running') return true;
  throw new Error(`the machine does not run: it is ${vm.status}`);
}

/** Polls until `condition` holds; fails, naming `what`, when it never does. It counts as an assertion. */
export async function until(
  what: string,
  condition: () => boolean,
  patience = HANG_MS,
): Promise<void> {
  const deadline = performance.now() + patience;
  for (let wait = 0; !condition(); wait = Math.min(wait + 1, 10)) {
    if (performance.now() > deadline) throw new Error(`waited ${patience} ms in vain: ${what}`);
    await sleep(wait);
  }
  expect(true, what).toBe(true);
}

export async function untilReady(
  vm: Vm,
  name: GuestName = 'counter',
  patience = HANG_MS,
): Promise<void> {
  const ready = () => word(vm, GUEST_ABI.MAGIC, name) === GUEST_MAGIC_VALUE;
  await until(`${name} gets ready`, () => alive(vm) && ready(), patience);
}

/** Until the guest has counted on by `more` from now. */
export async function untilCounted(vm: Vm, more = 1n, name: GuestName = 'counter'): Promise<void> {
  const goal = count(vm, name) + more;
  await until(`${name} counts to ${goal}`, () => count(vm, name) >= goal || !alive(vm));
}

/** Why the machine stopped; fails when it never does. */
export async function stopOf(vm: Vm): Promise<StopInfo> {
  const timer = new AbortController();
  try {
    return await Promise.race([
      vm.wait(),
      sleep(HANG_MS, undefined, { signal: timer.signal }).then(() => {
        throw new Error(`the machine is still ${vm.status} after ${HANG_MS} ms`);
      }),
    ]);
  } finally {
    timer.abort();
  }
}
