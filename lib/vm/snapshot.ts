/** A snapshot in a store, and machines made from it. */

import {
  requireFlag,
  requireFunction,
  requireOptions,
  requireSignal,
  requireTag,
} from '../arguments.js';
import { missingFeatures } from '../cpu/features.js';
import { requireArgument } from '../errors.js';
import { capability, kvmHost } from '../host/host.js';
import type { NativeImage, NativeMark } from '../native/binding.js';
import { nativeBinding } from '../native/load.js';
import { type Difference, requireCompatible } from '../snapshot/compat.js';
import type { SnapshotConfig } from '../snapshot/config.js';
import { requireWithin, type StoreLimits } from '../snapshot/limits.js';
import type { LoadedSnapshot } from '../snapshot/load.js';
import { SnapshotStore } from '../snapshot/store.js';
import type { VerifyOptions, VerifyReport } from '../snapshot/verify.js';
import { cancellable, throwIfAborted } from './abort.js';
import { configOf } from './describe.js';
import { type FlattenOptions, flattenSnapshot } from './flatten.js';
import { type ForkOptions, type Forks, forkAs, planFork } from './fork.js';
import type { IdentityOptions } from './identity.js';
import { makeMachine } from './maker.js';
import { Opening } from './opening.js';
import { dirtyLogOf } from './options.js';
import { type PagingOptions, planPaging, type WorkingSet } from './paging.js';
import { type HasPoint, type Point, sharePoint } from './point.js';
import type { SnapshotStats } from './save.js';
import type { Vm } from './vm.js';

/** What of a restored machine is the host's to choose. The machine itself is as it was saved. */
export interface RestoreOptions {
  /** Differences between this host and the snapshot's to let pass; the guest then sees them. */
  ignore?: readonly Difference['kind'][];
  /** KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2; default false. */
  manualDirtyLog?: boolean;
  /** Entries of each vCPU's dirty ring; see `VmOptions`. Default: none. */
  dirtyRing?: number;
  /**
   * Memory comes on demand (userfaultfd), from the snapshot's files or from JavaScript, instead of being
   * mapped from those files. What needs all of it (snapshots, forks, dirty tracking) first brings in
   * the rest. docs/on-demand.md.
   */
  paging?: PagingOptions;
  /** How it differs from other machines made from the snapshot. */
  identity?: IdentityOptions;
  /**
   * Reads every byte of the snapshot and compares it with its digests and checksums before the machine is
   * handed out. Default false: memory is mapped, and its pages are read when the guest first touches them,
   * unchecked. `ERR_SNAPSHOT_CORRUPT`.
   */
  verify?: boolean;
  /** Ends all that the call has begun: copies of memory, waits for a page source. `ERR_ABORTED`. */
  signal?: AbortSignal;
}

/** How to open a snapshot. */
export interface OpenOptions {
  /** What reading it may cost, and what machines made from it: over those of the store. */
  limits?: Partial<StoreLimits>;
  signal?: AbortSignal;
}

/** Read once, for any number of machines. */
interface Opened {
  loaded: LoadedSnapshot;
  image: NativeImage;
  /** The usual machine, converted once; one with other options costs its own conversion. */
  usual?: Point;
}

/**
 * A snapshot by its digest. What it needs of its files is read at the first use and kept until
 * {@link close}; machines made from it live on after that.
 */
export class Snapshot implements HasPoint, Disposable {
  readonly store: SnapshotStore;
  /** `sha256:…` of its manifest: no other snapshot has it. */
  readonly digest: string;
  readonly tag: string | undefined;
  /** What it cost; only where it was taken, not where it was opened. */
  readonly stats: SnapshotStats | undefined;
  /** Of the memory that it was saved from; machines made from its files have another. */
  readonly #saved: NativeMark | undefined;
  #opened: Opening<Opened> | undefined;
  #compatible: string | undefined;

  /** @internal */
  constructor(
    store: SnapshotStore,
    digest: string,
    tag?: string,
    taken?: { stats: SnapshotStats; mark: NativeMark },
  ) {
    this.store = store;
    this.digest = digest;
    this.tag = tag;
    this.stats = taken?.stats;
    this.#saved = taken?.mark;
  }

  /**
   * Opens a snapshot by tag or digest and checks all of it but memory. `ERR_SNAPSHOT_MISSING`,
   * `ERR_SNAPSHOT_FORMAT`, `ERR_SNAPSHOT_CORRUPT`, `ERR_SNAPSHOT_LIMIT`, `ERR_STORE`, `ERR_ABORTED`.
   */
  static async open(
    store: SnapshotStore | string,
    ref: string,
    { limits, signal }: OpenOptions = {},
  ): Promise<Snapshot> {
    const whole = typeof store === 'string' ? await SnapshotStore.open(store) : store;
    const from = limits === undefined ? whole : whole.withLimits(limits);
    const loaded = await from.load(ref, { signal });
    const snapshot = new Snapshot(from, loaded.digest, loaded.tag);
    const opened = openImage(loaded);
    snapshot.#opened = new Opening(() => Promise.resolve(opened), closeImage);
    return snapshot;
  }

  /** What machine it is of, where and when it was taken. */
  async config(): Promise<SnapshotConfig> {
    return this.#use(undefined, ({ loaded }) => loaded.config);
  }

  /**
   * A new machine, paused at the instant of the snapshot. Its memory is mapped copy-on-write, nothing
   * is read, unless asked to `verify`. `ERR_SNAPSHOT_INCOMPATIBLE` says what this host lacks;
   * `ERR_SNAPSHOT_LIMIT`, `ERR_SNAPSHOT_CORRUPT`, `ERR_ABORTED`.
   */
  async restore(options: RestoreOptions = {}): Promise<Vm> {
    requireOptions(options);
    const { signal, verify = false } = options;
    requireSignal(signal);
    requireFlag(verify, 'verify');
    return this.#use(signal, (opened) => this.#restore(opened, options));
  }

  async #restore(opened: Opened, options: RestoreOptions): Promise<Vm> {
    const { signal, verify = false } = options;
    this.#requireCompatible(opened.loaded, options.ignore ?? []);
    if (verify) await this.#verifyOpened(opened.image, signal);
    const usual = !options.manualDirtyLog && options.dirtyRing === undefined;
    const vm = await makeMachine(
      usual ? usualPoint(opened) : pointOf(opened, options),
      options.identity,
      options.paging ? planPaging(options.paging, opened.loaded) : undefined,
      signal,
    );
    if (signal?.aborted) {
      await vm.close();
      throwIfAborted(signal);
    }
    return vm;
  }

  /**
   * The same, many times: see {@link Vm.fork}. `ERR_SNAPSHOT_INCOMPATIBLE` as with {@link restore}.
   */
  async fork<const Options extends number | ForkOptions = 1>(
    options?: Options,
  ): Promise<Forks<Vm, Options>> {
    const given: ForkOptions | undefined = typeof options === 'number' ? undefined : options;
    requireOptions(given);
    const signal = given?.signal;
    requireSignal(signal);
    const until = signal ? { signal } : {};
    return this.#use(signal, (opened) => {
      const { generationId } = configOf(opened.loaded.config.machine, 1);
      return forkAs<Vm, Options>(planFork(options, generationId), (identity) =>
        this.#restore(opened, { ...(identity && { identity }), ...until }),
      );
    });
  }

  /** @internal */
  async point(): Promise<Point> {
    return this.#use(undefined, (opened) => {
      this.#requireCompatible(opened.loaded, []);
      return sharePoint(usualPoint(opened));
    });
  }

  /**
   * Writes the same instant into the store again, as a full snapshot, or with `parent` as one increment
   * on that ancestor: a long chain is slower to restore. All of it is verified first. The old ones stay
   * until they are deleted. `ERR_SNAPSHOT_CORRUPT`, `ERR_INVALID_ARGUMENT` (the parent), `ERR_STORE`,
   * `ERR_ABORTED`.
   */
  async flatten(options: FlattenOptions = {}): Promise<Snapshot> {
    requireOptions(options);
    requireParentType(options.parent);
    requireTag(options.tag);
    requireFlag(options.durable, 'durable');
    requireFunction(options.onProgress, 'onProgress');
    requireSignal(options.signal);
    throwIfAborted(options.signal);
    const digest = await this.#use(options.signal, (opened) =>
      flattenSnapshot(this.store, opened, options),
    );
    return new Snapshot(this.store, digest, options.tag);
  }

  /**
   * The same snapshot with a working set: pages that `restore({ paging: { prefetch: true } })` is to
   * fetch first, in that order; `vm.workingSet()` of a machine restored with `record` gives them. It
   * shares all blobs with this one, and has a digest of its own. `ERR_INVALID_ARGUMENT`, `ERR_STORE`.
   *
   * @example const warm = await snapshot.addWorkingSet(vm.workingSet(), { tag: 'warm' });
   */
  async addWorkingSet(
    runs: WorkingSet,
    options: { tag?: string; durable?: boolean } = {},
  ): Promise<Snapshot> {
    const { tag } = options;
    const digest = await this.store.addWorkingSet(this.digest, runs, options);
    return new Snapshot(this.store, digest, tag);
  }

  /** The pages that a restore on demand should fetch first, if the snapshot has them. */
  async workingSet(): Promise<WorkingSet | undefined> {
    return this.#use(undefined, ({ loaded }) => loaded.workingSet);
  }

  /** @internal What to compare an image with, to find what it changed since this snapshot. */
  async marksFor(image: NativeImage): Promise<NativeMark[]> {
    const marks = this.#saved === undefined ? [] : [this.#saved];
    // Where it costs nothing, both: a machine that was reset has pages of the one and of the other.
    const known = this.#opened === undefined && marks.some((mark) => image.isRelatedTo(mark));
    return known ? marks : this.#use(undefined, (opened) => [...marks, opened.image.mark()]);
  }

  /** Reads every byte and compares it with its checksums. `ERR_SNAPSHOT_CORRUPT`. */
  async verify(options: Omit<VerifyOptions, 'digestFile'> = {}): Promise<VerifyReport> {
    const { digestFile } = nativeBinding();
    return this.store.verify(this.digest, { ...options, digestFile });
  }

  /** Closes its files, once the calls that are under way are done. Idempotent; a later use opens them again. */
  close(): void {
    const opened = this.#opened;
    this.#opened = undefined;
    opened?.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #use<R>(signal: AbortSignal | undefined, work: (opened: Opened) => R | Promise<R>): Promise<R> {
    if (this.#opened === undefined || this.#opened.abandoned) {
      const opening = new Opening(
        async (until) => openImage(await this.store.load(this.digest, { signal: until })),
        closeImage,
      );
      // A failure is not kept: what was missing may be there next time.
      opening.result.catch(() => {
        if (this.#opened === opening) this.#opened = undefined;
      });
      this.#opened = opening;
    }
    return this.#opened.use(signal, work);
  }

  /** Of the files that are open, too: one of the store's may have been replaced since. */
  async #verifyOpened(image: NativeImage, signal: AbortSignal | undefined): Promise<void> {
    await this.verify(signal ? { signal } : {});
    await cancellable(signal, image.check());
  }

  #requireCompatible(loaded: LoadedSnapshot, ignore: readonly Difference['kind'][]): void {
    const key = ignore.join();
    if (this.#compatible === key) return;
    requireRoom(loaded, this.store.limits);
    requireCompatible(loaded, kvmHost(), { missingFeatures, ignore });
    this.#compatible = key;
  }
}

/** `ERR_SNAPSHOT_LIMIT` for a machine that is larger than this host should be asked for. */
function requireRoom({ config, regions }: LoadedSnapshot, limits: StoreLimits): void {
  const memory = regions.reduce((sum, { size }) => sum + size, 0);
  requireWithin(limits, 'memoryBytes', memory, 'the machine of the snapshot has much memory');
  const most = Math.min(limits.vcpus, capability('KVM_CAP_MAX_VCPUS'));
  const { vcpus } = config.machine;
  requireWithin({ ...limits, vcpus: most }, 'vcpus', vcpus, 'the machine has many vCPUs');
}

/** `ERR_INVALID_ARGUMENT` for what only looks like a snapshot. */
export function requireParentType(parent: Snapshot | undefined): void {
  requireArgument(
    parent === undefined || parent instanceof Snapshot,
    'parent must be a Snapshot: of this machine, or from Snapshot.open',
  );
}

function usualPoint(opened: Opened): Point {
  opened.usual ??= pointOf(opened, {});
  return opened.usual;
}

function pointOf(
  { loaded, image }: Opened,
  options: Pick<RestoreOptions, 'manualDirtyLog' | 'dirtyRing'>,
): Point {
  const { irqchip, devices } = loaded.config.machine;
  const machine = nativeBinding().prepareMachine({
    regions: loaded.regions.map((region) => ({ ...region, flags: 0 })),
    irqchip,
    ...dirtyLogOf(options),
    devices,
    cpuid: loaded.state.vcpus.map(({ cpuid2 }) => cpuid2),
    state: loaded.state,
  });
  const { vcpus, stopped } = loaded.state;
  const config = configOf(loaded.config.machine, vcpus.length);
  return { config, machine, image, ...(stopped ? { stopped } : {}) };
}

const closeImage = ({ image }: Opened): void => image.close();

function openImage(loaded: LoadedSnapshot): Opened {
  try {
    const image = nativeBinding().imageFromFiles(
      loaded.files.map(({ fd }) => fd),
      loaded.regions,
      loaded.extents.rows,
      [...loaded.files.map(({ digest }) => digest), ...loaded.lineage],
      loaded.files.map(({ checksums }) => checksums),
    );
    return { loaded, image };
  } finally {
    // The image has its own, and goes with the snapshot when that is forgotten.
    loaded.close();
  }
}
