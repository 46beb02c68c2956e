/** Ports and MMIO ranges that JavaScript answers for. */
import { requireFunction } from '../arguments.js';
import { KvmsnapError, requireArgument, textOf } from '../errors.js';
import type { NativeExit, NativeMachine } from '../native/binding.js';

/** Handlers for a port range. A missing `read` gives ones, a missing `write` drops the value. */
export interface PortClaim {
  /** First port, 0 to 0xFFFF. */
  base: number;
  /** Number of ports; default 1. */
  length?: number;
  /** The guest reads `size` bytes. The vCPU waits for the answer. */
  read?(port: number, size: 1 | 2 | 4): number | Promise<number>;
  write?(port: number, size: 1 | 2 | 4, value: number): void | Promise<void>;
}

/** Handlers for a range of guest physical addresses without RAM. Sizes are 1 to 8 bytes. */
export interface MmioClaim {
  base: bigint;
  /** Bytes. */
  length: number;
  read?(gpa: bigint, size: number): bigint | Promise<bigint>;
  write?(gpa: bigint, size: number, value: bigint): void | Promise<void>;
}

/** A claimed range. Disposing of it gives the range back. */
export interface Claim extends Disposable {
  release(): void;
}

type Answer = Uint8Array | undefined;

export class Claims {
  readonly #native: NativeMachine;
  readonly #handlers = new Map<number, (exit: NativeExit) => Promise<Answer>>();

  constructor(native: NativeMachine) {
    this.#native = native;
  }

  ports(claim: PortClaim): Claim {
    requireHandlers(claim);
    const id = this.#native.claimPorts(claim.base, claim.length ?? 1);
    return this.#add(id, (exit) => answerPort(claim, exit));
  }

  mmio(claim: MmioClaim): Claim {
    requireHandlers(claim);
    requireArgument(
      Number.isSafeInteger(claim.length) && claim.length > 0,
      'an MMIO claim has a length in bytes',
    );
    const id = this.#native.claimMmio(claim.base, claim.length);
    return this.#add(id, (exit) => answerMmio(claim, exit));
  }

  /** A vCPU waits: ask the handler, and tell the vCPU. Errors poison the machine. */
  async handle(vcpu: number, question: number, id: number, exit: NativeExit): Promise<void> {
    let answer: Uint8Array | KvmsnapError | undefined;
    try {
      const handler = this.#handlers.get(id);
      // Released between the exit and now.
      answer = handler ? await handler(exit) : undriven(exit);
    } catch (cause) {
      answer = new KvmsnapError('ERR_HANDLER', `${describe(exit)}: ${textOf(cause)}`, { cause });
    }
    // Closed while the handler was busy: nobody waits any more.
    if (this.#native.status !== 'closed') this.#native.completeExit(vcpu, question, answer);
  }

  #add(id: number, handler: (exit: NativeExit) => Promise<Answer>): Claim {
    this.#handlers.set(id, handler);
    const release = () => {
      if (!this.#handlers.delete(id)) return;
      if (this.#native.status !== 'closed') this.#native.unclaim(id);
    };
    return { release, [Symbol.dispose]: release };
  }
}

function requireHandlers(claim: PortClaim | MmioClaim): void {
  requireArgument(typeof claim === 'object' && claim !== null, 'a claim is an object');
  requireFunction(claim.read, 'read');
  requireFunction(claim.write, 'write');
}

async function answerPort(claim: PortClaim, exit: NativeExit): Promise<Answer> {
  if (exit.kind !== 'io') return undefined;
  const { port, size, data } = exit;
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.length);
  // A string instruction is `count` accesses.
  for (let at = 0; at < bytes.length; at += size) {
    if (exit.direction === 'out') {
      await claim.write?.(port, size, bytes.readUIntLE(at, size));
    } else {
      const value = claim.read ? await claim.read(port, size) : 2 ** (8 * size) - 1;
      requireValue(Number.isInteger(value) && value >= 0 && value < 2 ** (8 * size), value, size);
      bytes.writeUIntLE(value, at, size);
    }
  }
  return exit.direction === 'in' ? bytes : undefined;
}

async function answerMmio(claim: MmioClaim, exit: NativeExit): Promise<Answer> {
  if (exit.kind !== 'mmio') return undefined;
  const { gpa, size, data } = exit;
  const wide = Buffer.alloc(8);
  if (exit.write) {
    wide.set(data);
    await claim.write?.(gpa, size, wide.readBigUInt64LE());
    return undefined;
  }
  const limit = 1n << BigInt(8 * size);
  const value = claim.read ? await claim.read(gpa, size) : limit - 1n;
  requireValue(typeof value === 'bigint' && value >= 0n && value < limit, value, size);
  wide.writeBigUInt64LE(value);
  return wide.subarray(0, size);
}

function requireValue(good: boolean, value: unknown, size: number): void {
  if (good) return;
  throw new TypeError(`the handler gave ${String(value)}, which is no value of ${size} bytes`);
}

function undriven(exit: NativeExit): Answer {
  return 'data' in exit && exit.data instanceof Uint8Array
    ? new Uint8Array(exit.data.length).fill(0xff)
    : undefined;
}

function describe(exit: NativeExit): string {
  if (exit.kind === 'io') return `handler of port 0x${exit.port.toString(16)}`;
  if (exit.kind === 'mmio') return `handler of MMIO 0x${exit.gpa.toString(16)}`;
  return 'handler';
}
