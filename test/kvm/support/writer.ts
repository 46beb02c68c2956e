/** Checks the memory of native/guest/writer.S from outside. */
import { expect } from 'vitest';
import type { Vm } from '../../../lib/index.js';
import { GUEST_ABI as ABI } from '../../../lib/native/guest-abi.js';
import { type BootOptions, createGuest, setWord, until, word } from './machines.js';
import { startOthersAsFirst } from './multi.js';

const STEP = 0x9e3779b97f4a7c15n;
const GENERATION = 0x100000001b3n;
const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);

/** A writer on each vCPU, with `pages` pages each. */
export async function bootWriter(pages: number, options: BootOptions = {}): Promise<Vm> {
  const vm = await createGuest('writer', { ...options, regs: { r15: BigInt(pages) } });
  await startOthersAsFirst(vm);
  await vm.start();
  const wrote = () => vm.vcpus.every(({ index }) => word(vm, wordsOf(index) + ABI.COUNT) >= 2n);
  await until('every vCPU writes', wrote);
  return vm;
}

/** Where the words of a vCPU lie in the data page, and its pages in memory. */
const wordsOf = (vcpu: number): number => vcpu * 0x1000;
const pagesOf = (vcpu: number, pages: number): bigint => ABI.PAGES + BigInt(vcpu * pages * 4096);

/** What is wrong with a page, if anything, that should be whole and of generation `g`. */
function pageFault(words: BigUint64Array, index: number, g: bigint): string | undefined {
  if (words[0] !== 2n * g) return `sequence word is ${words[0]}, not ${2n * g}`;
  if (g === 0n) return undefined;
  const salt = words[510]!;
  let expected = u64((g * GENERATION + salt + BigInt(index) + 1n) * STEP);
  let sum = 0n;
  for (let i = 1; i < 510; i++) {
    if (words[i] !== expected) return `word ${i} is not of generation ${g}`;
    sum += expected;
    expected = u64(expected + STEP);
  }
  return words[511] === u64(sum + salt) ? undefined : 'the sum is wrong';
}

/**
 * The faults in the memory of a machine that stands still: every page but those being written has to be
 * whole and of the generation that its vCPU's cursor says, and the cursors of one instant.
 */
export function writerFaults(vm: Vm, pages: number): string[] {
  const faults = vm.vcpus.flatMap(({ index }) =>
    faultsOf(vm, pages, index).map((fault) => `vCPU ${index}: ${fault}`),
  );
  const ahead = vm.vcpus.reduce(
    (sum, { index }) => sum + cursorOf(vm, index),
    -word(vm, ABI.EXTRA),
  );
  if (ahead < 0n || ahead > vm.vcpus.length) faults.push(`the cursors are ${ahead} ahead`);
  return faults;
}

/** How many pages a vCPU has written. */
export const cursorOf = (vm: Vm, vcpu = 0): bigint => word(vm, wordsOf(vcpu) + ABI.CURSOR);

function faultsOf(vm: Vm, pages: number, vcpu: number): string[] {
  const cursor = cursorOf(vm, vcpu);
  const n = BigInt(pages);
  const all = Uint8Array.from(vm.memory.read(pagesOf(vcpu, pages), pages * 4096));
  const faults: string[] = [];
  for (let index = 0; index < pages; index++) {
    const at = BigInt(index);
    if (at === cursor % n) continue;
    const generation = cursor / n + (at < cursor % n ? 1n : 0n);
    const fault = pageFault(new BigUint64Array(all.buffer, index * 4096, 512), index, generation);
    if (fault) faults.push(`cursor ${cursor}, page ${index}: ${fault}`);
  }
  if (word(vm, wordsOf(vcpu) + ABI.ERRORS) !== 0n) faults.push('the guest found a wrong page');
  return faults;
}

/** A check for copies of a running writer, one after the other: each is of one instant, and none goes back. */
export function inOrder(pages: number): (copy: Vm) => void {
  let last = 0n;
  return (copy) => {
    expect(writerFaults(copy, pages)).toEqual([]);
    expect(cursorOf(copy)).toBeGreaterThanOrEqual(last);
    last = cursorOf(copy);
  };
}

/** The salt that a machine's vCPU is to write its next pages with. */
export const setSalt = (vm: Vm, salt: bigint, vcpu = 0): void =>
  setWord(vm, wordsOf(vcpu) + ABI.SALT, salt, 'writer');

/** The salts that a machine's pages were written with. */
export function salts(vm: Vm, pages: number): Set<bigint> {
  return new Set(
    Array.from({ length: pages }, (_, index) =>
      vm.memory.read(ABI.PAGES + BigInt(index * 4096 + 510 * 8), 8).readBigUInt64LE(),
    ),
  );
}
