// The two machines that are measured, as the floor program has them: the least that runs, and the full
// one. Both run its guest, native/guest/touch.S, in ring 3.
import assert from 'node:assert/strict';
import { MiB, Vm } from '../../dist/index.js';
import { GUEST_ABI } from '../../dist/native/guest-abi.js';
import { readGuest } from '../../dist/native/guests.js';

const NO_DEVICES = {
  serial: false,
  i8042: false,
  debugPort: true,
  exitPort: 0,
  cmos: false,
  acpiPower: false,
};

const KINDS = {
  least: { irqchip: false, devices: NO_DEVICES },
  full: { irqchip: true, devices: {} },
};

/** `name` for the least machine, `full_name` for the full one. */
export const figureOf = (kind, name) => (kind === 'full' ? `full_${name}` : name);

const guest = { image: readGuest('touch'), mode: 'long', ring: 3 };

export const createMachine = (kind, memory) => Vm.create({ bare: guest, memory, ...KINDS[kind] });

/**
 * How many pages the guest writes in a pass. IOPL 3, as the floor's guest has it: KVM then need not
 * look into the TSS at each `out`.
 */
export const setPages = (vm, pages) => vm.vcpus[0].setRegs({ r15: BigInt(pages), rflags: 0x3002n });

/** From the guest's first instruction to its first exit. */
export async function runToReady(vm) {
  const exit = await vm.vcpus[0].run();
  assert(exit.kind === 'io' && exit.port === GUEST_ABI.PORT_READY, `exit ${exit.kind}`);
}

export const pagesOf = (memory) => (memory - Number(GUEST_ABI.PAGES)) / 4096;

/** Noise in all pages that the guest may write, as the floor's image has it. */
export function fillMemory(vm, memory) {
  const words = new BigUint64Array(MiB(1) / 8);
  let word = 0x9e3779b97f4a7c15n;
  for (let i = 0; i < words.length; i++) {
    word = BigInt.asUintN(64, word * 0x5851f42d4c957f2dn + 0x14057b7ef767814fn);
    words[i] = word;
  }
  const bytes = Buffer.from(words.buffer);
  for (let at = Number(GUEST_ABI.PAGES); at < memory; at += bytes.length) {
    words[0] = BigInt(at);
    vm.memory.write(BigInt(at), bytes.subarray(0, Math.min(bytes.length, memory - at)));
  }
}

/** Resolves once the guest has written the last page of a pass. */
export async function passDone(vm, pages) {
  const last = GUEST_ABI.PAGES + BigInt(pages - 1) * 4096n;
  while (vm.memory.read(last, 8).readBigUInt64LE() !== 1n) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Machines from a snapshot, one after the other: until each is ready, and until its first exit. */
export async function measureRestores(kind, snapshot, [ready, firstExit], { runs, record, now }) {
  const closing = [];
  for (let i = 0; i < runs; i++) {
    const start = now();
    const vm = await snapshot.restore();
    record(figureOf(kind, ready), now() - start);
    await runToReady(vm);
    record(figureOf(kind, firstExit), now() - start);
    // For the half millisecond in which the least machine is closed the next one waits, as in the
    // floor. Not for the 20 ms of the full one, of which the kernel sleeps most: nobody would, and a
    // processor that slept is slow to begin with.
    const closed = vm.close();
    if (kind === 'full') closing.push(closed);
    else await closed;
  }
  await Promise.all(closing);
}
