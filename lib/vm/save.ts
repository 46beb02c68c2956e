/** Taking a snapshot of a machine. */
import { availableParallelism } from 'node:os';
import { requireArgument } from '../errors.js';
import { snapshotHostFacts } from '../host/host.js';
import type { NativeMachine } from '../native/binding.js';
import { nativeBinding } from '../native/load.js';
import type { MachineDescription } from '../snapshot/config.js';
import { storeError } from '../snapshot/failures.js';
import { SnapshotStore } from '../snapshot/store.js';
import { MiB } from '../units.js';
import { cancellable, throwIfAborted } from './abort.js';

export interface SnapshotOptions {
  /** A store, or the path of its directory, which is made if it is not there. */
  store: SnapshotStore | string;
  /** A name for the snapshot; one that is in use moves to it. */
  tag?: string;
  /**
   * What becomes of a running machine: `resume` (default) runs on while files are written, `pause`
   * stays paused, `stop` is closed once the snapshot is whole.
   */
  then?: 'resume' | 'pause' | 'stop';
  /** Wait for the disk, so that it survives a crash of the host. Default: as the store was opened. */
  durable?: boolean;
  /** Free text by key, kept with the snapshot. */
  annotations?: Record<string, string>;
  onProgress?: (doneBytes: number, totalBytes: number) => void;
  /** Aborts with `ERR_ABORTED`: the store is as before, the machine usable. */
  signal?: AbortSignal;
}

/** What a snapshot cost. */
export interface SnapshotStats {
  /** How long the guest stood still, in milliseconds; 0 if it was not running. */
  pauseMs: number;
  /** From the end of the pause until the snapshot was committed. */
  writeMs: number;
  /** Bytes of all files written. */
  bytes: number;
  /** 4 KiB pages of guest memory in them. */
  pages: number;
}

/** A snapshot that is whole and in its store. */
export interface SavedSnapshot {
  store: SnapshotStore;
  digest: string;
  stats: SnapshotStats;
}

/** A processor hashes two parts at a time: no larger than this, and at least two for each. */
const LARGEST_PART = MiB(256);
const SMALLEST_PART = MiB(8);

export async function saveMachine(
  vm: { describe(): MachineDescription; close(): Promise<void> },
  native: NativeMachine,
  options: SnapshotOptions,
): Promise<SavedSnapshot> {
  const { then = 'resume', signal } = options;
  requireArgument(
    then === 'resume' || then === 'pause' || then === 'stop',
    'then must be resume, pause or stop',
  );
  throwIfAborted(signal);
  // Before a store is made for it: a machine that was closed has nothing to save.
  const machine = vm.describe();
  const store =
    typeof options.store === 'string'
      ? await SnapshotStore.open(options.store, { create: true })
      : options.store;
  // Before the guest is stopped: a store that cannot be written costs it nothing.
  await using writer = await store.begin(
    options.durable === undefined ? {} : { durable: options.durable },
  );
  const frozen = await native.freeze(then === 'resume' ? 'resume' : 'pause');
  const started = performance.now();
  try {
    const total = await cancellable(signal, frozen.image.measure());
    const partSize = partSizeFor(total);
    const fds = writer.openParts(frozen.image.partCount(partSize));
    const written = await cancellable(
      signal,
      frozen.image.write(partSize, {
        fds,
        durable: writer.durable,
        ...(options.onProgress
          ? { progress: (done: number) => options.onProgress?.(done, total) }
          : {}),
      }),
    ).catch((cause) => {
      throw storeError(`writing memory to ${store.path}`, cause);
    });
    const committed = await writer.commit({
      ...(options.tag === undefined ? {} : { tag: options.tag }),
      config: {
        machine,
        host: snapshotHostFacts(),
        requires: { capabilities: requiredCapabilities(machine) },
        ...(options.annotations ? { annotations: options.annotations } : {}),
      },
      state: nativeBinding().preparedState(frozen.machine),
      memory: written,
      ...(signal ? { signal } : {}),
    });
    options.onProgress?.(total, total);
    const stats: SnapshotStats = {
      pauseMs: frozen.pauseUs / 1000,
      writeMs: performance.now() - started,
      bytes: committed.bytes,
      pages: written.parts.reduce((sum, { size }) => sum + size, 0) / 4096,
    };
    if (then === 'stop') await vm.close();
    return { store, digest: committed.digest, stats };
  } finally {
    frozen.image.close();
  }
}

function partSizeFor(bytes: number): number {
  const share = Math.ceil(bytes / (2 * availableParallelism()));
  return Math.min(LARGEST_PART, Math.max(SMALLEST_PART, share));
}

function requiredCapabilities(machine: MachineDescription): Record<string, number> {
  return {
    KVM_CAP_USER_MEMORY: 1,
    KVM_CAP_SREGS2: 1,
    ...(machine.irqchip ? { KVM_CAP_IRQCHIP: 1, KVM_CAP_PIT2: 1, KVM_CAP_PIT_STATE2: 1 } : {}),
  };
}
