/** The guest `dirtier`, and dirty epochs held against what it did. */
import { beforeEach, expect } from 'vitest';
import { forEachPage, TRACKERS, type TrackerName } from '../../../lib/dirty/epoch.js';
import type { DirtyEpoch, Vm, VmOptions } from '../../../lib/index.js';
import { GUEST_ABI as ABI } from '../../../lib/native/guest-abi.js';
import { MiB } from '../../../lib/units.js';
import { kernelSince, SLOWDOWN } from './host.js';
import { type BootOptions, createGuest, setWord, until, word } from './machines.js';
import { startOthersAsFirst } from './multi.js';

/** Journals lie from here up, 4 MiB for each vCPU; pages to write come after them. */
const JOURNALS = 0x200000n;
const JOURNAL_BYTES = MiB(4);
export const DIRTY_BASE = 0xa00000n;

export interface Round {
  pages: number;
  /** 0: in order. */
  seed?: number;
  /** Pages to choose from; default as many as are written. */
  range?: number;
  base?: bigint;
  vcpu?: number;
  journal?: boolean;
}

/** A machine in which every vCPU waits for rounds; it runs. */
export async function bootDirtier(options: BootOptions = {}): Promise<Vm> {
  const vm = await createGuest('dirtier', { memory: MiB(128), ...options });
  await startOthersAsFirst(vm);
  await vm.start();
  return vm;
}

const line = (vcpu: number): number => ABI.LINES + 64 * vcpu;

export const roundsDone = (vm: Vm, vcpu = 0): bigint =>
  word(vm, line(vcpu) + ABI.ROUND_DONE, 'dirtier');

/** Starts a round and does not wait for it. */
export function begin(vm: Vm, round: Round): void {
  const { pages, seed = 0, range = pages, base = DIRTY_BASE, vcpu = 0, journal = true } = round;
  const set = (offset: number, value: bigint | number): void =>
    setWord(vm, line(vcpu) + offset, value, 'dirtier');
  set(ABI.ROUND_BASE, base);
  set(ABI.ROUND_RANGE, range);
  set(ABI.ROUND_COUNT, pages);
  set(ABI.ROUND_SEED, seed);
  set(ABI.ROUND_JOURNAL, journal ? JOURNALS + BigInt(vcpu * JOURNAL_BYTES) : 0n);
  // The journal of the round before is over, whenever the guest begins with this one.
  set(ABI.ROUND_WRITTEN, 0);
  set(ABI.ROUND_COMMAND, ABI.COMMAND_GO);
}

/** Ends a round, if one is under way. */
export async function interrupt(vm: Vm, vcpu = 0): Promise<void> {
  const command = line(vcpu) + ABI.ROUND_COMMAND;
  setWord(vm, command, ABI.COMMAND_EXIT, 'dirtier');
  await until('the round is left', () => word(vm, command, 'dirtier') === 0n);
}

/** The addresses, as numbers of pages, that the present round of a vCPU has written so far. */
export function journal(vm: Vm, { base = DIRTY_BASE, vcpu = 0 }: Partial<Round> = {}): number[] {
  const written = Number(word(vm, line(vcpu) + ABI.ROUND_WRITTEN, 'dirtier'));
  const bytes = Uint8Array.from(
    vm.memory.read(JOURNALS + BigInt(vcpu * JOURNAL_BYTES), written * 8),
  );
  const first = Number(base / 4096n);
  return Array.from(new BigUint64Array(bytes.buffer), (page) => first + Number(page));
}

/** A whole round; gives what it wrote. */
export async function write(vm: Vm, round: Round): Promise<number[]> {
  const { vcpu = 0 } = round;
  const before = roundsDone(vm, vcpu);
  begin(vm, round);
  await until('the round is done', () => roundsDone(vm, vcpu) > before);
  return journal(vm, round);
}

/** The pages of an epoch by address. */
export function framesOf(...epochs: DirtyEpoch[]): Set<number> {
  const frames = new Set<number>();
  for (const { slots } of epochs) {
    for (const slot of slots) {
      const base = Number(slot.gpa / 4096n);
      forEachPage(slot, (page) => frames.add(base + page));
    }
  }
  return frames;
}

/** Pages that were written and that the epochs do not have. */
export const missed = (written: Iterable<number>, ...epochs: DirtyEpoch[]): number[] => {
  const found = framesOf(...epochs);
  return [...new Set(written)].filter((frame) => !found.has(frame));
};

/** An iterator that is asked for one epoch after the other, at once. */
export interface Harvester {
  next(): Promise<DirtyEpoch>;
  stop(): Promise<void>;
}

export async function harvester(vm: Vm, tracker: TrackerName): Promise<Harvester> {
  const loop = vm.dirty({ tracker, every: 0 });
  const next = async (): Promise<DirtyEpoch> => {
    const result = await loop.next();
    if (result.done) throw new Error('the loop has ended');
    return result.value;
  };
  // Tracking starts with the first call, whose epoch holds what comes before the test's own.
  await next();
  return {
    next,
    async stop() {
      await loop.return();
    },
  };
}

/** The emulated host's kernel, 6.1, lacks what two of them need. */
export const TRACKERS_HERE = TRACKERS.filter(
  (tracker) => SLOWDOWN === 1 || (tracker !== 'uffd-wp' && tracker !== 'pagemap'),
);

/** Options that a machine needs for a tracker. */
export const machineFor = (tracker: TrackerName): VmOptions =>
  tracker === 'ring' ? { dirtyRing: 1024 } : {};

/** Kernels that have what a tracker needs, from the first on: docs/dirty-tracking.md. */
const NEEDS: Partial<Record<TrackerName, [major: number, minor: number]>> = {
  pagemap: [6, 7],
  'uffd-wp': [6, 4],
};

/** Why a tracker cannot work on this kernel, if it cannot. */
export function whyNoTracker(tracker: TrackerName): string | undefined {
  const needs = NEEDS[tracker];
  if (!needs || kernelSince(...needs)) return undefined;
  return `the tracker ${tracker} needs Linux ${needs.join('.')}`;
}

/** For the tests of one tracker: where the kernel lacks what it needs they are skipped. */
export function requireTracker(tracker: TrackerName): void {
  const reason = whyNoTracker(tracker);
  if (reason === undefined) return;
  console.warn(`SKIPPED: ${reason}`);
  beforeEach((context) => context.skip(reason));
}

/** Every page from `first` on, `count` of them, must be named; a few more may. */
export function expectNone(pages: number[]): void {
  expect(pages.slice(0, 20), `${pages.length} pages were missed`).toEqual([]);
}
