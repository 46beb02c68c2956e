/** Taking a snapshot of a machine. */
import { realpathSync } from 'node:fs';
import {
  requireAnnotations,
  requireFlag,
  requireFunction,
  requireSignal,
  requireTag,
} from '../arguments.js';
import { requireArgument } from '../errors.js';
import { snapshotHostFacts } from '../host/host.js';
import type { NativeMachine, NativeMark } from '../native/binding.js';
import { nativeBinding } from '../native/load.js';
import { type OnProgress, withProgress } from '../progress.js';
import type { SnapshotWriter } from '../snapshot/commit.js';
import { type MachineDescription, memoryRegions } from '../snapshot/config.js';
import { SnapshotStore } from '../snapshot/store.js';
import { requireWorkingSet } from '../snapshot/working-set.js';
import { throwIfAborted } from './abort.js';
import type { WorkingSet } from './paging.js';
import type { Snapshot } from './snapshot.js';
import { writeMemory } from './write-memory.js';

export interface SnapshotOptions {
  /** A store, or the path of its directory, which is made if it is not there. */
  store: SnapshotStore | string;
  /** A name for the snapshot; one that is in use moves to it. */
  tag?: string;
  /**
   * Write only the pages that differ from this snapshot's, which must be in the same store, and of this
   * machine or of one that it comes from. The new one needs it no more than any other: see
   * {@link SnapshotStore.delete}.
   */
  parent?: Snapshot;
  /**
   * What becomes of a running machine: `resume` (default) runs on while files are written, `pause`
   * stays paused, `stop` is closed once the snapshot is whole.
   */
  then?: 'resume' | 'pause' | 'stop';
  /** Wait for the disk, so that it survives a crash of the host. Default: as the store was opened. */
  durable?: boolean;
  /** Pages that a restore on demand is to fetch first: see {@link Snapshot.addWorkingSet}. */
  workingSet?: WorkingSet;
  /** Free text by key, kept with the snapshot. */
  annotations?: Record<string, string>;
  onProgress?: OnProgress;
  /** Aborts with `ERR_ABORTED`: the store is as before, the machine usable. */
  signal?: AbortSignal;
}

/** What a snapshot cost. With a parent: what was written beyond it. */
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
  /** Of the memory it was saved from. */
  mark: NativeMark;
}

/** What can be known to be wrong before a store is opened. `ERR_INVALID_ARGUMENT`. */
export function checkSnapshotOptions(options: SnapshotOptions): void {
  const { then = 'resume', store } = options;
  requireArgument(
    then === 'resume' || then === 'pause' || then === 'stop',
    'then must be resume, pause or stop',
  );
  requireArgument(
    typeof store === 'string' || store instanceof SnapshotStore,
    'store must be a SnapshotStore, or the path of one',
  );
  requireTag(options.tag);
  requireFlag(options.durable, 'durable');
  requireAnnotations(options.annotations);
  requireFunction(options.onProgress, 'onProgress');
  requireSignal(options.signal);
}

export async function saveMachine(
  vm: { describe(): MachineDescription; close(): Promise<void> },
  native: NativeMachine,
  options: SnapshotOptions,
): Promise<SavedSnapshot> {
  const { then = 'resume', parent } = options;
  throwIfAborted(options.signal);
  // Before a store is made for it: a machine that was closed has nothing to save.
  const machine = vm.describe();
  if (options.workingSet !== undefined) {
    requireWorkingSet(options.workingSet, memoryRegions(machine));
  }
  return withProgress(options, async (progress) => {
    const { signal } = progress;
    const store =
      typeof options.store === 'string'
        ? await SnapshotStore.open(options.store, { create: true })
        : options.store;
    // Before the guest is stopped: a store that cannot be written costs it nothing.
    await using writer = await store.begin(
      options.durable === undefined ? {} : { durable: options.durable },
    );
    if (parent !== undefined) await requireParent(writer, parent, machine);
    throwIfAborted(signal);
    const frozen = await native.freeze(then === 'resume' ? 'resume' : 'pause');
    const started = performance.now();
    try {
      const { written, total } = await writeMemory(writer, {
        image: frozen.image,
        ...(parent ? { since: await parent.marksFor(frozen.image) } : {}),
        progress,
      });
      progress.report(total, total);
      await progress.settle();
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
        ...(parent ? { parentDigest: parent.digest } : {}),
        ...(options.workingSet ? { workingSet: options.workingSet } : {}),
        signal,
      });
      const stats: SnapshotStats = {
        pauseMs: frozen.pauseUs / 1000,
        writeMs: performance.now() - started,
        bytes: committed.bytes,
        pages: written.parts.reduce((sum, { size }) => sum + size, 0) / 4096,
      };
      const mark = frozen.image.mark();
      if (then === 'stop') await vm.close();
      return { store, digest: committed.digest, stats, mark };
    } finally {
      frozen.image.close();
    }
  });
}

/** What a commit would refuse in a parent, before anything is done for it. */
export async function requireParent(
  writer: SnapshotWriter,
  parent: Snapshot,
  machine: MachineDescription,
): Promise<void> {
  const there = parent.store.path;
  requireArgument(
    realpathSync(there) === realpathSync(writer.store),
    `the parent is in another store (${there}): save to that one, or take a full snapshot`,
  );
  await writer.requireParent(parent.digest, machine);
}

function requiredCapabilities(machine: MachineDescription): Record<string, number> {
  return {
    KVM_CAP_USER_MEMORY: 1,
    KVM_CAP_SREGS2: 1,
    ...(machine.irqchip ? { KVM_CAP_IRQCHIP: 1, KVM_CAP_PIT2: 1, KVM_CAP_PIT_STATE2: 1 } : {}),
  };
}
