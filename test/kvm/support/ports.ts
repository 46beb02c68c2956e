/** Lists of accesses for the guest `ports`. */
import type { Vm } from '../../../lib/index.js';
import { GUEST_ABI } from '../../../lib/native/guest-abi.js';
import { type BootOptions, count, createGuest, setWord, until, word } from './machines.js';

export type Size = 1 | 2 | 4 | 8;

/** One operation of native/guest/ports.S. */
export type Operation =
  | { op: 'in'; size: Size; port: number }
  | { op: 'out'; size: Size; port: number; value: number }
  | { op: 'ins' | 'outs'; size: Size; port: number; count: number; address: bigint }
  | { op: 'load'; size: Size; address: bigint }
  | { op: 'store'; size: Size; address: bigint; value: bigint }
  | { op: 'exit'; value: number };

const NUMBERS = { in: 1, out: 2, ins: 3, outs: 4, load: 5, store: 6, exit: 7 } as const;
const BYTES = 32;
const LIST = GUEST_ABI.DATA + BigInt(GUEST_ABI.LINES);

function encode(operation: Operation): Buffer {
  const bytes = Buffer.alloc(BYTES);
  bytes[0] = NUMBERS[operation.op];
  if ('size' in operation) bytes[1] = operation.size;
  if ('port' in operation) bytes.writeUInt16LE(operation.port, 2);
  if ('count' in operation) bytes.writeUInt32LE(operation.count, 4);
  if ('address' in operation) bytes.writeBigUInt64LE(operation.address, 8);
  if ('value' in operation) bytes.writeBigUInt64LE(BigInt(operation.value), 16);
  return bytes;
}

export function writeList(vm: Vm, operations: readonly Operation[]): void {
  vm.memory.write(LIST, Buffer.concat([...operations.map(encode), Buffer.alloc(BYTES)]));
}

/** A machine that will execute `operations` when it is started. */
export async function createPorts(
  operations: readonly Operation[],
  options: BootOptions = {},
): Promise<Vm> {
  const vm = await createGuest('ports', options);
  writeList(vm, operations);
  return vm;
}

/** What the `n`-th operation read. */
export const result = (vm: Vm, n: number): bigint => word(vm, GUEST_ABI.LINES + n * BYTES + 24);

export const untilPass = (vm: Vm, pass: bigint): Promise<void> =>
  until(`pass ${pass} is done`, () => count(vm) >= pass);

/** Starts the machine, waits for the end of the list, and gives what its operations read. */
export async function runList(vm: Vm, operations: readonly Operation[]): Promise<bigint[]> {
  await vm.start();
  await untilPass(vm, 1n);
  return operations.map((_, n) => result(vm, n));
}

/** Has the list executed once more. */
export async function runAgain(vm: Vm): Promise<void> {
  const pass = count(vm) + 1n;
  setWord(vm, GUEST_ABI.COMMAND, GUEST_ABI.COMMAND_GO);
  await untilPass(vm, pass);
}
