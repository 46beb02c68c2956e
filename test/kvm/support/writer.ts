/** Checks the memory of native/guest/writer.S from outside. */
import type { Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { type BootOptions, bootGuest, untilCounted, word } from './machines.js';

const STEP = 0x9e3779b97f4a7c15n;
const GENERATION = 0x100000001b3n;
const u64 = (value: bigint): bigint => BigInt.asUintN(64, value);

export async function bootWriter(pages: number, options: BootOptions = {}): Promise<Vm> {
  const vm = await bootGuest('writer', { ...options, regs: { r15: BigInt(pages) } });
  await untilCounted(vm, 2n, 'writer');
  return vm;
}

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
 * The faults in the memory of a machine that stands still: every page but the one being written has
 * to be whole and of the generation that the guest's cursor says.
 */
export function writerFaults(vm: Vm, pages: number): string[] {
  const cursor = word(vm, GUEST_ABI.CURSOR);
  const n = BigInt(pages);
  const all = Uint8Array.from(vm.memory.read(GUEST_ABI.PAGES, pages * 4096));
  const faults: string[] = [];
  for (let index = 0; index < pages; index++) {
    const at = BigInt(index);
    if (at === cursor % n) continue;
    const generation = cursor / n + (at < cursor % n ? 1n : 0n);
    const fault = pageFault(new BigUint64Array(all.buffer, index * 4096, 512), index, generation);
    if (fault) faults.push(`cursor ${cursor}, page ${index}: ${fault}`);
  }
  if (word(vm, GUEST_ABI.ERRORS) !== 0n) faults.push('the guest found a wrong page');
  return faults;
}

/** The salts that a machine's pages were written with. */
export function salts(vm: Vm, pages: number): Set<bigint> {
  return new Set(
    Array.from({ length: pages }, (_, index) =>
      vm.memory.read(GUEST_ABI.PAGES + BigInt(index * 4096 + 510 * 8), 8).readBigUInt64LE(),
    ),
  );
}
