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

export async function createMachine(kind, memory, options = {}) {
  const vm = await Vm.create({ bare: guest, memory, ...KINDS[kind], ...options });
  if (memory > HOLE_START) await foldHole(vm, memory);
  return vm;
}

// RAM is a second region from 4 GiB on when it is more than 3 GiB.
const HOLE_START = Number(GUEST_ABI.LOW_END);
const HOLE = GUEST_ABI.HIGH_START - GUEST_ABI.LOW_END;
const gpaOf = (offset) => BigInt(offset) + (offset < HOLE_START ? 0n : HOLE);

/**
 * Lets the guest see its RAM as one run of addresses, so that it can write all of it in a pass: each
 * entry of its page directory pointers from the hole on becomes the one after it.
 */
async function foldHole(vm, memory) {
  const { cr3 } = await vm.vcpus[0].getSregs();
  const table = vm.memory.read(cr3, 8).readBigUInt64LE() & ~0xfffn;
  const entries = Math.ceil((memory - HOLE_START) / 2 ** 30) * 8;
  const at = table + (GUEST_ABI.LOW_END >> 30n) * 8n;
  vm.memory.write(at, vm.memory.read(at + 8n, entries));
}

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

/** One pass over its pages. */
export async function runToPass(vm) {
  const exit = await vm.vcpus[0].run();
  assert(exit.kind === 'io' && exit.port === GUEST_ABI.PORT_PASS, `exit ${exit.kind}`);
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
    vm.memory.write(gpaOf(at), bytes.subarray(0, Math.min(bytes.length, memory - at)));
  }
}

/** The instant of a machine full of noise, in memory. */
export async function snapshotFilled(kind, memory) {
  const vm = await createMachine(kind, memory);
  try {
    fillMemory(vm, memory);
    await setPages(vm, 10);
    return await vm.snapshot();
  } finally {
    await vm.close();
  }
}

/** Where the guest's last page of a pass is. */
const lastOf = (pages) => gpaOf(Number(GUEST_ABI.PAGES) + (pages - 1) * 4096);

async function untilLast(vm, pages) {
  while (vm.memory.read(lastOf(pages), 8).readBigUInt64LE() !== 1n) {
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/**
 * A full machine whose guest has written `pages` pages once and is writing the first `later` of them over
 * and over.
 */
export async function startPopulated(memory, pages, later) {
  const vm = await createMachine('full', memory);
  try {
    await setPages(vm, pages);
    await vm.start();
    await untilLast(vm, pages);
    if (later !== pages) await setLater(vm, later);
    return vm;
  } catch (error) {
    await vm.close();
    throw error;
  }
}

/** What a running guest writes over and over from now on. */
export async function setLater(vm, pages) {
  await vm.pause();
  // The pass that it is in ends with this page.
  await vm.vcpus[0].setRegs({ r15: BigInt(pages), rcx: 1n });
  await vm.start();
  await untilWritten(vm, pages);
}

/** Resolves once the running guest has written each of these pages since the call. */
export async function untilWritten(vm, pages) {
  for (let pass = 0; pass < 2; pass++) {
    // Of a pass that may have begun before; then of one that has not.
    vm.memory.write(lastOf(pages), new Uint8Array(8));
    await untilLast(vm, pages);
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
