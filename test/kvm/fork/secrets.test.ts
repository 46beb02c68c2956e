/** A machine that was reset, taken back by a pool or forked has nothing of the life before. */
import { randomBytes } from 'node:crypto';
import { setImmediate as turn } from 'node:timers/promises';
import { describe, expect, it } from 'vitest';
import { type MemorySnapshot, Pool, type Vm } from '../../../lib/index.js';
import type { RawMachineState } from '../../../lib/native/binding.js';
import { GUEST_ABI as ABI } from '../../../lib/native/guest-abi.js';
import { MiB } from '../../../lib/units.js';
import { hangLimit, SLOWDOWN } from '../support/host.js';
import { bootGuest, count, setWord, stopOf, until, word } from '../support/machines.js';
import { differences } from '../support/state.js';

/** `KVMSNAP_POOLED=100000` is what a release is tested with: pooled ones so many, others a tenth. */
const LIVES = Number(process.env.KVMSNAP_POOLED ?? 400 / SLOWDOWN);
const RAM = MiB(3);
/** Places for the secret: pages that the guest does not write otherwise. */
const FIRST_PLACE = Number(ABI.PAGES) + 2 * 4096;

const allOf = (vm: Vm) => vm.memory.read(0n, RAM);

/** The bytes of every struct, device field and MSR of a state. */
function bytesOf(value: unknown): Buffer {
  if (value instanceof Uint8Array) return Buffer.from(value);
  if (typeof value === 'object' && value !== null) {
    return Buffer.concat(Object.values(value).map(bytesOf));
  }
  const bytes = Buffer.alloc(8);
  if (typeof value === 'bigint') bytes.writeBigUInt64LE(BigInt.asUintN(64, value));
  if (typeof value === 'number') bytes.writeDoubleLE(value);
  return bytes;
}

/** Has the guest do something, while it runs. */
async function tell(vm: Vm, command: number): Promise<void> {
  const before = count(vm);
  setWord(vm, ABI.COMMAND, command);
  // It takes no longer than a timer.
  for (let i = 0; i < 100 && count(vm) === before; i++) await turn();
  await until('the guest has done it', () => {
    if (vm.status !== 'running') throw new Error(`the machine is ${vm.status}`);
    return count(vm) > before;
  });
}

/** All that the guest sees from inside. */
async function sightOf(vm: Vm): Promise<string> {
  await tell(vm, ABI.COMMAND_GO);
  return `${vm.memory.read(ABI.PAGES, 4096).toString('hex')} ${word(vm, ABI.CHECKSUM)}`;
}

async function hide(vm: Vm, secret: Buffer): Promise<void> {
  vm.memory.write(ABI.DATA + BigInt(ABI.SCRATCH), secret);
  const places = Buffer.alloc(64);
  for (let i = 0; i < 8; i++) {
    const room = RAM - FIRST_PLACE - 32;
    const place = FIRST_PLACE + (randomBytes(4).readUInt32LE() % room);
    places.writeBigUInt64LE(BigInt(place), i * 8);
  }
  vm.memory.write(ABI.DATA + BigInt(ABI.LINES), places);
  await tell(vm, ABI.COMMAND_REFILL);
  // More than the FIFO holds.
  vm.console.write(secret);
}

/** How a life ends: standing, running, killed, ended by the guest. */
async function end(vm: Vm, life: number): Promise<void> {
  if (life % 4 === 0) await vm.pause();
  if (life % 4 === 2) await vm.kill();
  if (life % 4 === 3) {
    setWord(vm, ABI.COMMAND, ABI.COMMAND_EXIT);
    await stopOf(vm);
  }
}

class Watch {
  readonly #memory: Buffer;
  readonly #state: RawMachineState;
  #sight: string | undefined;
  #secret = randomBytes(32);

  constructor(memory: Buffer, state: RawMachineState) {
    this.#memory = memory;
    this.#state = state;
  }

  /** A life from its first instant on. */
  async live(vm: Vm, life: number, heard = { bytes: 0 }): Promise<void> {
    const state = await vm.saveState();
    expect(differences(this.#state, state)).toEqual([]);
    expect(allOf(vm).equals(this.#memory)).toBe(true);
    const bytes = bytesOf(state);
    for (let at = 0; at < 32; at += 4) {
      expect(bytes.includes(this.#secret.subarray(at, at + 4)), `secret in ${life}`).toBe(false);
    }
    await turn();
    expect(heard.bytes, 'sent before it ran').toBe(0);
    await vm.resume();
    if (life % 8 < 2) {
      const sight = await sightOf(vm);
      this.#sight ??= sight;
      expect(sight).toBe(this.#sight);
    }
    this.#secret = randomBytes(32);
    await hide(vm, this.#secret);
    // It is all over the machine now.
    if (life === 0) expect(allOf(vm).includes(this.#secret)).toBe(true);
    await end(vm, life);
  }
}

const KINDS = [
  { ring: 3, irqchip: false },
  { ring: 3, irqchip: true },
  { ring: 0, irqchip: false },
  { ring: 0, irqchip: true },
] as const;

describe.each(KINDS)('a guest in ring $ring, irqchip: $irqchip', ({ ring, irqchip }) => {
  const some = Math.ceil(LIVES / (ring === 3 && !irqchip ? 10 : 40));
  const limit = hangLimit(LIVES, 50);

  async function origin(): Promise<{ vm: Vm; snapshot: MemorySnapshot; watch: Watch }> {
    const vm = await bootGuest('secrets', {
      ring,
      irqchip,
      memory: RAM,
      regs: { rsi: irqchip ? 1n : 0n },
    });
    // Once, so that the page tables say what the guest has touched.
    await sightOf(vm);
    await vm.pause();
    return {
      vm,
      snapshot: await vm.snapshot(),
      watch: new Watch(allOf(vm), await vm.saveState()),
    };
  }

  it(
    `finds nothing after a reset: ${some} lives`,
    async () => {
      const { vm, snapshot, watch } = await origin();
      for (let life = 0; life < some; life++) {
        await vm.reset(snapshot);
        await watch.live(vm, life);
      }
      snapshot.close();
    },
    limit,
  );

  it(
    `finds nothing in a fork: ${some} lives`,
    async () => {
      const { snapshot, watch } = await origin();
      for (let life = 0; life < some; life++) {
        const [vm] = (await snapshot.fork()) as [Vm];
        await watch.live(vm, life, listen(vm));
        await vm.close();
      }
      snapshot.close();
    },
    limit,
  );

  const pooled = ring === 3 && !irqchip ? LIVES : some;
  it(
    `finds nothing in a pool's machine: ${pooled} lives`,
    async () => {
      const { snapshot, watch } = await origin();
      await using pool = await Pool.create(snapshot, { size: 2 });
      for (let life = 0; life < pooled; life++) {
        const vm = await pool.get();
        await watch.live(vm, life, listen(vm));
        await vm.close();
      }
      expect(pool.stats).toMatchObject({ discarded: 0, handedOut: pooled });
      snapshot.close();
    },
    limit,
  );
});

/** What comes out of a machine. */
function listen(vm: Vm): { bytes: number } {
  const heard = { bytes: 0 };
  for (const stream of [vm.debug, vm.console]) {
    stream.on('data', (data: Buffer) => {
      heard.bytes += data.length;
    });
  }
  return heard;
}
