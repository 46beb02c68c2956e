/** A machine. */
import { requireOptions } from '../arguments.js';
import type { DirtyEpoch } from '../dirty/epoch.js';
import { type DirtyOptions, trackDirty } from '../dirty/track.js';
import { KvmsnapError, requireArgument } from '../errors.js';
import type { MachineStatus, NativeMachine, RawMachineState } from '../native/binding.js';
import type { MachineDescription } from '../snapshot/config.js';
import { type Beginning, beginAt, beginFromPool, beginNew } from './beginning.js';
import { type Claim, Claims, type MmioClaim, type PortClaim } from './claims.js';
import type { Console } from './console.js';
import { describeMachine } from './describe.js';
import { type ForkOptions, type Forks, forkAs, planFork } from './fork.js';
import { HaltWatch } from './halt-watch.js';
import { GENERATION_ID_SIZE, type IdentityOptions, identityOf } from './identity.js';
import { setMaker } from './maker.js';
import { VmMemory } from './memory.js';
import { MemorySnapshot } from './memory-snapshot.js';
import {
  bringInAll,
  type PageInOptions,
  pageIn,
  pagingFactsOf,
  workingSetOf,
} from './on-demand.js';
import type { VmOptions } from './options.js';
import type { OutputStream } from './output.js';
import type { PagingFacts, WorkingSet } from './paging.js';
import { goBackTo, type Point } from './point.js';
import { checkSnapshotOptions, type SnapshotOptions, saveMachine } from './save.js';
import { requireParentType, Snapshot } from './snapshot.js';
import type { StopInfo, Stops } from './stops.js';
import { Streams } from './streams.js';
import { Vcpu } from './vcpu.js';

export type { StopInfo } from './stops.js';

/**
 * A micro-VM in this process. It starts in state `created` (or `paused`, when restored) and runs on
 * threads of its own; no call here ever waits for a vCPU. A running machine keeps the process alive,
 * as a child process does (`unref`). One that was forgotten while it was not running is closed by the
 * garbage collector; `await using` or {@link close} is better.
 */
export class Vm implements AsyncDisposable {
  readonly memory: VmMemory;
  readonly vcpus: readonly Vcpu[];
  /** This ownership's own: closed when the machine goes back to a pool, whoever gets it next. */
  readonly #native: NativeMachine;
  readonly #claims: Claims;
  readonly #streams: Streams;
  readonly #config: Point['config'];
  readonly #stops: Stops;
  /** What it was made from, or last reset to. Its image is this machine's own handle. */
  #origin: Point | undefined;
  /** Ends this ownership of the native machine, if that is a pool's. */
  readonly #giveBack: Beginning['giveBack'];
  readonly #haltWatch: HaltWatch;
  #closing: Promise<void> | undefined;

  static {
    setMaker(async (...instant) => new Vm(await beginAt(...instant)));
  }

  /** @internal */
  private constructor({ native, config, events, origin, giveBack }: Beginning) {
    this.#native = native;
    this.#config = config;
    this.#stops = events.stops;
    this.#origin = origin;
    this.#giveBack = giveBack;
    this.#haltWatch = new HaltWatch(native);
    this.memory = new VmMemory(native);
    this.vcpus = Array.from({ length: config.vcpus }, (_, index) => new Vcpu(index, native));
    this.#claims = new Claims(native);
    this.#streams = new Streams(native);
    events.hearer = { vm: this, claims: this.#claims, streams: this.#streams };
  }

  /**
   * Makes a machine, with its guest loaded and not yet started. `ERR_INVALID_ARGUMENT`,
   * `ERR_KERNEL_IMAGE`, `ERR_NO_KVM`, `ERR_IOCTL`, `ERR_ABORTED`.
   */
  static async create(options: VmOptions = {}): Promise<Vm> {
    return new Vm(await beginNew(options));
  }

  /** @internal See {@link beginFromPool}. */
  static fromPool(...pooled: Parameters<typeof beginFromPool>): Vm {
    return new Vm(beginFromPool(...pooled));
  }

  /** Both ways of the serial port COM1. */
  get console(): Console {
    return this.#streams.console;
  }

  /** Bytes the guest wrote to port 0xE9. */
  get debug(): OutputStream {
    return this.#streams.debug;
  }

  /** `created | running | paused | stopped | poisoned | closed`. */
  get status(): MachineStatus {
    return this.#native.status;
  }

  /** The VM generation ID as the guest finds it, 16 bytes; undefined for a machine without one. */
  get generationId(): Uint8Array | undefined {
    const place = this.#config.generationId;
    return place && this.#native.readMemory(place.gpa, GENERATION_ID_SIZE);
  }

  /** `created` or `paused` to `running`. `ERR_STATE`, `ERR_POISONED`, `ERR_CLOSED`. */
  async start(): Promise<void> {
    await this.#native.resume();
    if (this.#config.irqchip) this.#haltWatch.begin();
  }

  /** The same as {@link start}. */
  async resume(): Promise<void> {
    await this.start();
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
   * is lost. It can be looked at and closed, and a {@link reset} heals it.
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

  /**
   * What became of memory that comes on demand (see {@link RestoreOptions.paging}); undefined for a
   * machine that has all of it, as also after a {@link reset}.
   */
  get paging(): PagingFacts | undefined {
    return pagingFactsOf(this.#native);
  }

  /**
   * The pages with content that were touched since the machine was restored on demand, in the order of
   * their first touch; exact with `record`, otherwise whole blocks. `ERR_STATE` for any other machine.
   */
  workingSet(): WorkingSet {
    return workingSetOf(this.#native);
  }

  /**
   * Brings in what is missing of a range of memory, or all of it: after that the machine is like any
   * other. At once where nothing is missing. `ERR_ABORTED`, `ERR_PAGE_SOURCE`, `ERR_INVALID_ARGUMENT`;
   * `ERR_CLOSED`, `ERR_POISONED` when the machine ends before.
   */
  async pageIn(options: PageInOptions = {}): Promise<void> {
    await pageIn(this.#native, options);
  }

  /** Frees everything; resolves when threads, descriptors and mappings are gone. Idempotent. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /**
   * Resolves when the guest stops the machine, or it is killed or fails; see {@link StopInfo}. After a
   * {@link reset} it waits for the next stop. It always settles, and never rejects: when the machine is
   * closed first the reason is `closed`.
   */
  wait(): Promise<StopInfo> {
    return this.#stops.wait();
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
   * Saves the whole machine, into a store or, without one, in memory. A running guest stands still only
   * while its memory is frozen and its state read (`pauseMs`); files are written while it runs on. With
   * a `parent` only what changed since is written.
   *
   * `ERR_STATE`, `ERR_CLOSED`, `ERR_POISONED`, `ERR_STORE`, `ERR_ABORTED`; `ERR_INVALID_ARGUMENT` for a
   * parent in another store, of another machine, or of other memory slots.
   *
   * @example const next = await vm.snapshot({ store, parent: await vm.snapshot({ store }) });
   */
  async snapshot(options: SnapshotOptions): Promise<Snapshot>;
  async snapshot(options?: { then?: 'resume' | 'pause' }): Promise<MemorySnapshot>;
  async snapshot(
    options: SnapshotOptions | { then?: 'resume' | 'pause'; store?: undefined } = {},
  ): Promise<Snapshot | MemorySnapshot> {
    requireOptions(options);
    if (options.store === undefined) {
      const { then = 'resume' } = options;
      requireArgument(
        then === 'resume' || then === 'pause',
        'then must be resume or pause: a snapshot in memory does not close its machine',
      );
      await bringInAll(this.#native);
      return MemorySnapshot.take(this.#native, this.#config, then);
    }
    requireParentType(options.parent);
    checkSnapshotOptions(options);
    await bringInAll(this.#native, options.signal);
    const { store, digest, ...taken } = await saveMachine(this, this.#native, options);
    return new Snapshot(store, digest, options.tag, taken);
  }

  /**
   * New machines, paused at this instant (or `stopped`, as this one is), that share all pages with this one until either writes them.
   * A running machine goes on as soon as its memory is frozen; machines are made while it runs. They have
   * its RAM, CPUs and devices; claims, console and debug stream are their own. Each can be forked again,
   * and all end in any order. `ERR_STATE`, `ERR_CLOSED`, `ERR_POISONED`, `ERR_ABORTED`, `ERR_IOCTL`.
   *
   * @example const [a, b] = await vm.fork(2);
   */
  async fork<const Options extends number | ForkOptions = 1>(
    options?: Options,
  ): Promise<Forks<Vm, Options>> {
    const plan = planFork(options, this.#config.generationId);
    await bringInAll(this.#native, plan.signal);
    using snapshot = await this.snapshot();
    return await forkAs(plan, (identity) => snapshot.restore(identity ? { identity } : {}));
  }

  /**
   * Puts this machine back to a snapshot's instant, and leaves it paused there, or `stopped` if the guest
   * had ended it by then: memory, CPUs, devices and
   * pending interrupts. Without an argument it is the one that the machine was made from, or last reset
   * to. Works in any state but closed, and heals a poisoned machine. A running vCPU that waits for a
   * handler gets its answer first: `kill()` before does not wait. Claims and streams stay.
   *
   * It is the very same instant again, with the generation ID and the clocks of then, unless `identity`
   * says otherwise.
   *
   * The snapshot must be of a machine with the same vCPUs, devices and slots. `ERR_STATE`,
   * `ERR_SNAPSHOT_FORMAT`; when KVM refuses a part the machine is poisoned.
   */
  async reset(
    to?: Snapshot | MemorySnapshot,
    options: { identity?: IdentityOptions } = {},
  ): Promise<void> {
    requireOptions(options);
    requireArgument(
      to === undefined || to instanceof Snapshot || to instanceof MemorySnapshot,
      'a machine is reset to a Snapshot or a MemorySnapshot',
    );
    identityOf(options.identity, 'keep', this.#config.generationId);
    const machine = { native: this.#native, config: this.#config, stops: this.#stops };
    if (to === undefined) return goBackTo(() => this.#requireOrigin(), machine, options.identity);
    // Before anything else is waited for: whoever closes the snapshot from here on closes another handle.
    const point = await to.point();
    try {
      await goBackTo(() => point, machine, options.identity);
    } catch (error) {
      point.image.close();
      throw error;
    }
    this.#origin?.image.close();
    this.#origin = point;
    if (this.#closing) point.image.close();
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
    requireOptions(options);
    const { signal } = options;
    const prepare = () => bringInAll(this.#native, signal);
    return trackDirty({ native: this.#native, ended: this.#stops.ended, prepare }, options);
  }

  /** The raw state of CPUs, VM and devices. The machine must not be running. */
  async saveState(): Promise<RawMachineState> {
    return this.#native.saveState();
  }

  /**
   * Puts such a state back into this machine; memory stays as it is. A stopped machine runs on from there,
   * unless the state is `stopped`.
   */
  async loadState(state: RawMachineState): Promise<void> {
    this.#stops.begin(await this.#native.loadState(state), state.stopped);
  }

  /** What machine this is, as a snapshot says it. */
  describe(): MachineDescription {
    return describeMachine(this.#native, this.#config);
  }

  #requireOrigin(): Point {
    if (this.#origin) return this.#origin;
    throw new KvmsnapError(
      'ERR_STATE',
      'the machine was not made from a snapshot: say which one to reset it to',
    );
  }

  async #close(): Promise<void> {
    this.#streams.close();
    await (this.#giveBack ? this.#giveBack(this.#native) : this.#native.close());
    this.#origin?.image.close();
    this.#streams.end();
    // After the last news: a guest may have stopped just before.
    this.#stops.close();
  }
}
