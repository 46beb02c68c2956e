/** Snapshots that are restored at once, for tests of what a machine and its copies do next. */
import { SnapshotStore, type Vm } from '../../../lib/index.js';
import { tracked } from './machines.js';
import { scratch } from './scratch.js';

/** Copies of a machine, paused, as it was at one instant; the machine itself is left as `then` says. */
export async function copiesOf(
  vm: Vm,
  copies: number,
  then: 'resume' | 'pause' = 'pause',
): Promise<Vm[]> {
  const store = await SnapshotStore.open(`${scratch()}/store`, { create: true, durable: false });
  using snapshot = await vm.snapshot({ store, then });
  return await Promise.all(
    Array.from({ length: copies }, async () => tracked(await snapshot.restore())),
  );
}
