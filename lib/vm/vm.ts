/** A machine. */
import type { BootPlan } from '../boot/index.js';
import { encodeRegs, encodeSregs } from '../cpu/registers.js';
import type { DirtyEpoch } from '../dirty/epoch.js';
import { type DirtyOptions, trackDirty } from '../dirty/track.js';
import type { KvmsnapError } from '../errors.js';
import type {
  MachineStatus,
  NativeImage,
  NativeMachine,
  NativeMachineConfig,
  NativePreparedMachine,
  NativeStop,
  RawMachineState,
} from '../native/binding.js';
import { nativeBinding } from '../native/load.js';
import type { MachineDescription } from '../snapshot/config.js';
import { throwIfAborted } from './abort.js';
import { type Claim, Claims, type MmioClaim, type PortClaim } from './claims.js';
import { Console } from './console.js';
import { VmMemory } from './memory.js';
import { type MachinePlan, planMachine, type VmOptions } from './options.js';
import { OutputGate, OutputStream } from './output.js';
import { type SnapshotOptions, saveMachine } from './save.js';
import { Snapshot } from './snapshot.js';
import { Vcpu } from './vcpu.js';

/** Why a machine stopped by itself, or was poisoned. `code`: what the guest wrote to the exit port. */
export type StopInfo = NativeStop;

/**
 * A micro-VM in this process. It starts in state `created` (or `paused`, when restored) and runs on
 * threads of its own; no call here ever waits for a vCPU. A running machine keeps the process alive,
 * as a child process does (`unref`). One that was forgotten while it was not running is closed by the
 * garbage collector; `await using` or {@link close} is better.
 */
export class Vm implements AsyncDisposable {
  readonly memory: VmMemory;
  readonly vcpus: readonly Vcpu[];
  readonly #native: NativeMachine;
  readonly #claims: Claims;
  readonly #config: Pick<NativeMachineConfig, 'irqchip' | 'devices'>;
  readonly #stopped: Promise<StopInfo>;
  readonly #output: readonly [OutputGate, OutputGate];
  // Streams cost more than the rest of this object: made for those who use them.
  #console: Console | undefined;
  #debug: OutputStream | undefined;
  #ended: AbortController | undefined;
  #closing: Promise<void> | undefined;

  /** @internal */
  private constructor(
    native: NativeMachine,
    config: NativeMachineConfig,
    events: MachineEvents,
    stopped: Promise<StopInfo>,
  ) {
    this.#native = native;
    this.#config = { irqchip: config.irqchip, devices: config.devices };
    this.#stopped = stopped;
    const machine = () => this.#native;
    this.memory = new VmMemory(machine);
    this.vcpus = config.cpuid.map((_, index) => new Vcpu(index, machine));
    this.#claims = new Claims(machine);
    const setFlow = (stream: 0 | 1) => (flowing: boolean) => {
      if (native.status !== 'closed') native.setOutputFlow(stream, flowing);
    };
    this.#output = [new OutputGate(setFlow(0)), new OutputGate(setFlow(1))];
    events.vm = this;
  }

  /**
   * Makes a machine, with its guest loaded and not yet started. `ERR_INVALID_ARGUMENT`,
   * `ERR_KERNEL_IMAGE`, `ERR_NO_KVM`, `ERR_IOCTL`, `ERR_ABORTED`.
   */
  static async create(options: VmOptions = {}): Promise<Vm> {
    throwIfAborted(options.signal);
    const { config, boot }: MachinePlan = await planMachine(options);
    throwIfAborted(options.signal);
    const vm = await Vm.fromConfig(config);
    try {
      throwIfAborted(options.signal);
      if (boot) await vm.#load(boot);
      return vm;
    } catch (error) {
      await vm.close();
      throw error;
    }
  }

  /**
   * @internal Makes a machine from what the addon takes. `prepared` is `config` after
   * `prepareMachine`, and then goes with the `image`: `Snapshot.restore` comes here.
   */
  static async fromConfig(
    config: NativeMachineConfig,
    prepared?: { machine: NativePreparedMachine; image: NativeImage },
  ): Promise<Vm> {
    const events = new MachineEvents();
    const stopped = new Promise<StopInfo>((resolve) => {
      events.onStop = resolve;
    });
    const native = await nativeBinding().createMachine(
      prepared?.machine ?? config,
      events,
      prepared?.image,
    );
    return new Vm(native, config, events, stopped);
  }

  /** Both ways of the serial port COM1. */
  get console(): Console {
    this.#console ??= new Console(this.#output[0], (bytes) => this.#native.serialInput(bytes));
    return this.#console;
  }

  /** Bytes the guest wrote to port 0xE9. */
  get debug(): OutputStream {
    this.#debug ??= new OutputStream(this.#output[1]);
    return this.#debug;
  }

  /** `created | running | paused | stopped | poisoned | closed`. */
  get status(): MachineStatus {
    return this.#native.status;
  }

  /** `created` or `paused` to `running`. `ERR_STATE`, `ERR_POISONED`, `ERR_CLOSED`. */
  async start(): Promise<void> {
    await this.#native.resume();
  }

  /** The same as {@link start}. */
  async resume(): Promise<void> {
    await this.#native.resume();
  }

  /**
   * `running` to `paused`: in memory only, and idempotent. Resolves when every vCPU stands at an
   * instruction boundary; a vCPU that waits for a JavaScript handler gets its answer first.
   */
  async pause(): Promise<void> {
    await this.#native.pause();
  }

  /**
   * Stops the machine wherever it is, even in a handler, and leaves it `poisoned`: what it was doing
   * is lost, and it can only be looked at and closed.
   */
  async kill(): Promise<void> {
    try {
      await this.#native.kill();
    } catch (error) {
      // Closed meanwhile, by whoever waits for it to stop: that is more than was asked for.
      if (this.#closing === undefined || (error as KvmsnapError).code !== 'ERR_CLOSED') throw error;
      await this.#closing;
    }
  }

  /** Frees everything; resolves when threads, descriptors and mappings are gone. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Resolves when the guest stops the machine, or it is killed or fails; see {@link StopInfo}. */
  wait(): Promise<StopInfo> {
    return this.#stopped;
  }

  /** Whether the running machine keeps the process alive; it does at first. */
  ref(): this {
    this.#native.ref();
    return this;
  }

  unref(): this {
    this.#native.unref();
    return this;
  }

  /**
   * Answers for a range of ports, from now on and until the claim is released. Handlers may be async:
   * the vCPU waits. A handler that throws poisons the machine (`ERR_HANDLER`, see {@link wait}).
   */
  claimPorts(claim: PortClaim): Claim {
    return this.#claims.ports(claim);
  }

  /** The same for guest physical addresses that have no RAM. */
  claimMmio(claim: MmioClaim): Claim {
    return this.#claims.mmio(claim);
  }

  /** KVM_IRQ_LINE: raises or lowers an input of the irqchip. `ERR_STATE` without one. */
  setIrqLine(gsi: number, level: boolean): void {
    this.#native.setIrqLine(gsi, level);
  }

  /**
   * Saves the whole machine into a store. A running guest stands still only while its memory is frozen
   * and its state read (`snapshot.stats.pauseMs`); files are written while it runs on.
   */
  async snapshot(options: SnapshotOptions): Promise<Snapshot> {
    const { store, digest, stats } = await saveMachine(this, this.#native, options);
    return new Snapshot(store, digest, options.tag, stats);
  }

  /**
   * Tracks which pages are written: `for await (const epoch of vm.dirty({ tracker: 'bitmap' })) …`.
   * Tracking starts with the loop and stops when it is left, and what tracking changed is restored.
   * It works in every state but `poisoned` and goes on across snapshots. When the guest ends there is
   * a last epoch; closing the machine ends the loop. `ERR_STATE`: another tracker is at work, or the
   * machine was not made for this one; `ERR_KVM_CAPABILITY`, `ERR_SYSTEM`: the host has no such
   * tracker; `ERR_ABORTED`, `ERR_POISONED`.
   */
  dirty(options: DirtyOptions = {}): AsyncGenerator<DirtyEpoch, void, undefined> {
    return trackDirty({ native: this.#native, ended: this.#whenEnded() }, options);
  }

  /** The raw state of CPUs, VM and devices. The machine must not be running. */
  async saveState(): Promise<RawMachineState> {
    return this.#native.saveState();
  }

  /** Puts such a state back into this machine; memory stays as it is. */
  async loadState(state: RawMachineState): Promise<void> {
    await this.#native.loadState(state);
  }

  /** What machine this is, as a snapshot says it. */
  describe(): MachineDescription {
    const regions = this.#native.regions();
    return {
      vcpus: this.vcpus.length,
      memory: { regions: regions.map(({ slot, gpa, size }) => ({ slot, gpa: Number(gpa), size })) },
      irqchip: this.#config.irqchip,
      devices: { ...this.#config.devices },
    };
  }

  /** @internal */
  get output(): readonly [OutputGate, OutputGate] {
    return this.#output;
  }

  /** @internal */
  get claims(): Claims {
    return this.#claims;
  }

  #whenEnded(): AbortSignal {
    if (this.#ended === undefined) {
      const ended = new AbortController();
      this.#ended = ended;
      this.#stopped.then(() => ended.abort());
      if (this.#closing) ended.abort();
    }
    return this.#ended.signal;
  }

  async #load({ writes, entry }: BootPlan): Promise<void> {
    for (const { gpa, data } of writes) this.#native.writeMemory(gpa, data);
    const native = this.#native;
    const sregs = await native.getVcpu(0, 'sregs2');
    await native.setVcpu(0, 'sregs2', encodeSregs(entry.sregs, sregs));
    const regs = await native.getVcpu(0, 'regs');
    await native.setVcpu(0, 'regs', encodeRegs(entry.regs, regs));
  }

  async #close(): Promise<void> {
    this.#ended?.abort();
    // What the guest wrote while nobody took it comes out before the end of the stream.
    if (this.status !== 'closed') {
      this.#native.setOutputFlow(0, true);
      this.#native.setOutputFlow(1, true);
    }
    await this.#native.close();
    for (const gate of this.#output) gate.end();
  }
}

/** What the addon calls. Holds the machine weakly in no way: the two are collected together. */
class MachineEvents {
  vm: Vm | undefined;
  onStop: (stop: StopInfo) => void = () => {};

  stopped(stop: StopInfo): void {
    this.onStop(stop);
  }

  output(stream: 0 | 1, bytes: Uint8Array): void {
    this.vm?.output[stream].take(bytes);
  }

  exit(vcpu: number, claim: number, exit: Parameters<Claims['handle']>[2]): void {
    void this.vm?.claims.handle(vcpu, claim, exit);
  }
}
