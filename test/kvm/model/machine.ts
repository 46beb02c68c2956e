/** One machine with the guest `jobs`, and what it has to be. */
import { setImmediate as turn } from 'node:timers/promises';
import { expect } from 'vitest';
import {
  type DirtyEpoch,
  type Pool,
  type TrackerName,
  Vm,
  type VmOptions,
} from '../../../lib/index.js';
import { GUEST_ABI as ABI } from '../../../lib/native/guest-abi.js';
import { KiB, MiB } from '../../../lib/units.js';
import { framesOf } from '../support/dirtier.js';
import { guestOptions, until, word } from '../support/machines.js';
import { startOthersAsFirst } from '../support/multi.js';
import { codeOf } from './code-of.js';
import { type Area, ModelMemory, PAGE } from './memory.js';
import { applyJob, type Job, KERNEL_GS_BASE, ModelState } from './state.js';

/** What kind of machine a sequence is about. */
export interface Kind {
  vcpus: 1 | 2;
  irqchip: boolean;
  /** Made with dirty rings instead of dirty logs. */
  ring: boolean;
  /** A second memory slot. */
  slot: boolean;
}

/** A machine's instant, as it has to be. */
export interface Instant {
  memory: ModelMemory;
  state: ModelState;
  /** Its memory is mapped from a snapshot's files, which userfaultfd does not watch. */
  files: boolean;
  /** Snapshots that an increment on this memory can have as parent, for sure. */
  parents: ReadonlySet<object>;
}

const SLOT: Area = { gpa: 1 << 30, size: MiB(1) };
const LINES = Number(ABI.DATA) + ABI.LINES;
const WORK: Area = { gpa: Number(ABI.PAGES), size: MiB(2) };
/** Where jobs and the host write. */
export const workAreas = ({ slot }: Kind): Area[] => (slot ? [WORK, SLOT] : [WORK]);

interface Tracking {
  tracker: TrackerName;
  loop: AsyncGenerator<DirtyEpoch, void, undefined>;
  /** Pages whose content may have changed since the last harvest. */
  touched: Set<number>;
  /** The tracker cannot follow where memory was mapped since. */
  lost: boolean;
  /** The machine was killed: there is one more epoch. */
  last: boolean;
}

export class ModelMachine {
  readonly vm: Vm;
  readonly kind: Kind;
  instant: Instant;
  running = false;
  poisoned = false;
  /** Where `reset()` without a snapshot goes. */
  origin: Instant | undefined;
  pool: Pool | undefined;
  tracking: Tracking | undefined;

  private constructor(vm: Vm, kind: Kind, instant: Instant) {
    this.vm = vm;
    this.kind = kind;
    this.instant = instant;
  }

  /** A machine whose guest has done a job on each vCPU, so that all that ever changes has changed once. */
  static async create(kind: Kind): Promise<ModelMachine> {
    const options: VmOptions = {
      memory: WORK.gpa + WORK.size,
      vcpus: kind.vcpus,
      irqchip: kind.irqchip,
      ...(kind.ring ? { dirtyRing: 1024 } : {}),
    };
    const vm = await Vm.create(guestOptions('jobs', options));
    try {
      if (kind.slot) await vm.memory.addSlot({ slot: 5, gpa: BigInt(SLOT.gpa), size: SLOT.size });
      await startOthersAsFirst(vm);
      await vm.start();
      for (let vcpu = 0; vcpu < kind.vcpus; vcpu++) {
        for (const area of workAreas(kind)) {
          const job: Job = { vcpu, base: area.gpa, stride: PAGE, count: 9, seed: 1n, command: 1n };
          await command(vm, job, () => undefined);
        }
      }
      await vm.pause();
      const instant = {
        memory: ModelMemory.of(vm),
        state: ModelState.of(await vm.saveState(), {
          first: word(vm, ABI.EXTRA),
          end: word(vm, ABI.SCRATCH),
        }),
        files: false,
        parents: new Set<object>(),
      };
      return new ModelMachine(vm, kind, instant);
    } catch (error) {
      await vm.close();
      throw error;
    }
  }

  /** A machine that was made from that instant. */
  static from(vm: Vm, kind: Kind, instant: Instant): ModelMachine {
    expect(vm.status).toBe('paused');
    const machine = new ModelMachine(vm, kind, copyOf(instant));
    machine.origin = instant;
    return machine;
  }

  /** Its instant now, for a snapshot. */
  now(): Instant {
    return copyOf(this.instant);
  }

  /** A job on a paused machine is run by hand, on one vCPU (`alone`), or by starting the machine. */
  async job(job: Omit<Job, 'command'>, alone: boolean): Promise<void> {
    const whole = { ...job, command: BigInt(alone && !this.running ? 3 : ABI.COMMAND_GO) };
    if (this.running) await command(this.vm, whole, (gpa) => this.touch(gpa));
    else if (alone) await this.#alone(whole);
    else {
      const done = await command(
        this.vm,
        whole,
        (gpa) => this.touch(gpa),
        () => this.vm.start(),
      );
      expect(done).toBe(true);
      await this.vm.pause();
    }
    const { memory, state } = this.instant;
    memory.write(lineOf(job.vcpu) + ABI.ROUND_BASE, describe(job));
    memory.setWord(lineOf(job.vcpu) + ABI.ROUND_COMMAND, 0n);
    const done = lineOf(job.vcpu) + ABI.ROUND_DONE;
    memory.setWord(done, memory.word(done) + 1n);
    const setWord = (gpa: number, value: bigint) => {
      this.touch(gpa);
      memory.setWord(gpa, value);
    };
    applyJob(whole, { word: (gpa) => memory.word(gpa), setWord }, state);
  }

  async #alone(job: Job): Promise<void> {
    describeTo(this.vm, job, (gpa) => this.touch(gpa));
    const exit = await this.vm.vcpus[job.vcpu]!.run({ dispatch: true });
    expect(exit).toMatchObject({ kind: 'io', direction: 'out', port: ABI.PORT_PASS });
  }

  write(gpa: number, bytes: Uint8Array): void {
    this.vm.memory.write(BigInt(gpa), bytes);
    this.instant.memory.write(gpa, bytes);
    for (let at = gpa - (gpa % PAGE); at < gpa + bytes.length; at += PAGE) this.touch(at);
  }

  async setRegisters(vcpu: number, value: bigint): Promise<void> {
    const registers = this.vm.vcpus[vcpu]!;
    await registers.setRegs({ r13: value });
    await registers.setMsrs([{ index: KERNEL_GS_BASE, data: value >> 20n }]);
    const { db } = await registers.getDebugRegs();
    await registers.setDebugRegs({ db: [value >> 24n, ...db.slice(1)] });
    const model = this.instant.state.vcpus[vcpu]!;
    model.regs.r13 = value;
    model.kernelGsBase = value >> 20n;
    model.dr0 = value >> 24n;
  }

  /** A byte for the serial port, which holds one; the others wait outside until a reset. */
  type(byte: number): void {
    this.vm.console.write(Uint8Array.of(byte));
    this.instant.state.devices.received ??= byte;
  }

  async reset(to: Instant, call: () => Promise<void>): Promise<void> {
    await call();
    expect(this.vm.status).toBe('paused');
    this.running = this.poisoned = false;
    for (const page of this.instant.memory.differences(to.memory)) this.touch(page * PAGE);
    if (to.files && this.tracking?.tracker === 'uffd-wp') this.tracking.lost = true;
    this.instant = copyOf(to);
  }

  /** Starts tracking; a tracker that another is in the way of, or that cannot be, is refused. */
  async track(tracker: TrackerName): Promise<void> {
    const loop = this.vm.dirty({ tracker, every: 0 });
    const refusal = this.#refusal(tracker);
    if (refusal !== undefined) {
      expect(await codeOf(loop.next())).toMatch(refusal);
      return;
    }
    await loop.next();
    this.tracking = { tracker, loop, touched: new Set(), lost: false, last: false };
  }

  #refusal(tracker: TrackerName): RegExp | undefined {
    if (this.poisoned) return /^ERR_POISONED$/;
    if (this.tracking !== undefined) return /^ERR_STATE$/;
    const log = tracker === 'bitmap' || tracker === 'bitmap-manual';
    if (this.kind.ring ? log : tracker === 'ring') return /^ERR_STATE$/;
    if (tracker === 'uffd-wp' && this.instant.files) return /^ERR_(STATE|SYSTEM)$/;
    return undefined;
  }

  /** Every page that was written since has to be named. */
  async harvest(): Promise<void> {
    const { tracking } = this;
    if (tracking === undefined) return;
    if (tracking.lost || this.poisoned) {
      const code = this.poisoned ? /^ERR_POISONED$/ : /^ERR_/;
      expect(await codeOf(tracking.loop.next())).toMatch(code);
      this.tracking = undefined;
      return;
    }
    const { value, done } = await tracking.loop.next();
    expect(done).toBe(false);
    const found = framesOf(value as DirtyEpoch);
    const missed = [...tracking.touched].filter((page) => !found.has(page));
    expect(missed, `${tracking.tracker} missed pages`).toEqual([]);
    tracking.touched.clear();
    if (!tracking.last) return;
    expect((await tracking.loop.next()).done).toBe(true);
    this.tracking = undefined;
  }

  async kill(): Promise<void> {
    await this.vm.kill();
    this.poisoned = true;
    this.running = false;
    if (this.tracking) this.tracking.last = true;
  }

  async untrack(): Promise<void> {
    await this.tracking?.loop.return();
    this.tracking = undefined;
  }

  touch(gpa: number): void {
    this.tracking?.touched.add(Math.floor(gpa / PAGE));
  }

  /** Fails unless all of it is as it has to be. */
  async check(what: string): Promise<void> {
    expect(this.vm.status, what).toMatch(this.#status());
    if (this.running) await this.vm.pause();
    const { memory, state } = this.instant;
    expect(memory.fault(this.vm), `${what}: memory`).toBeUndefined();
    if (this.poisoned) return;
    expect(state.fault(await this.vm.saveState()), `${what}: state`).toBeUndefined();
    if (this.running) await this.vm.resume();
  }

  #status(): RegExp {
    if (this.poisoned) return /^poisoned$/;
    return this.running ? /^running$/ : /^(created|paused)$/;
  }
}

const copyOf = ({ memory, state, files, parents }: Instant): Instant => ({
  memory: memory.copy(),
  state: state.copy(),
  files,
  parents: new Set(parents),
});

const lineOf = (vcpu: number): number => LINES + 64 * vcpu;

/** GUEST_ROUND_BASE to GUEST_ROUND_SEED. */
function describe({ base, stride, count, seed }: Omit<Job, 'command' | 'vcpu'>): Buffer {
  const bytes = Buffer.alloc(32);
  [BigInt(base), BigInt(stride), BigInt(count), seed].forEach((value, i) => {
    bytes.writeBigUInt64LE(value, i * 8);
  });
  return bytes;
}

function describeTo(vm: Vm, job: Job, touch: (gpa: number) => void): void {
  vm.memory.write(BigInt(lineOf(job.vcpu) + ABI.ROUND_BASE), describe(job));
  const go = Buffer.alloc(8);
  go.writeBigUInt64LE(job.command);
  vm.memory.write(BigInt(lineOf(job.vcpu) + ABI.ROUND_COMMAND), go);
  touch(lineOf(job.vcpu));
}

/** Gives a job to a guest that runs, or that `start` starts, and waits until it is done. */
async function command(
  vm: Vm,
  job: Job,
  touch: (gpa: number) => void,
  start: () => Promise<void> = () => turn(),
): Promise<boolean> {
  const done = () => word(vm, ABI.LINES + 64 * job.vcpu + ABI.ROUND_DONE);
  const before = done();
  describeTo(vm, job, touch);
  await start();
  await until('the job is done', () => done() > before);
  return done() === before + 1n;
}

/** The longest write of the host's. */
export const LONGEST_WRITE = KiB(80);
