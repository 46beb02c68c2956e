// New machines from a snapshot's files, the page cache warm. For the half millisecond in which the least
// machine is closed the next one waits, as in the floor. Not for the 20 ms of the full one, of which the
// kernel sleeps most: nobody would, and a processor that slept is slow to begin with.
import { join } from 'node:path';
import { Snapshot, SnapshotStore } from '../../../dist/index.js';
import { createMachine, figureOf, fillMemory, runToReady, setPages } from '../machines.mjs';

const stores = new Map();

/** A store with one snapshot, of a machine that has not run: the same for all rounds. */
async function storeOf(kind, { memory, scratch }) {
  const path = join(scratch, `restore-${kind}`);
  if (!stores.has(path)) {
    const vm = await createMachine(kind, memory);
    fillMemory(vm, memory);
    await setPages(vm, 10);
    const snapshot = await vm.snapshot({ store: path, tag: 'bench', durable: false });
    snapshot.close();
    await vm.close();
    stores.set(path, path);
  }
  return path;
}

export async function measure(context) {
  const { runs, record, now } = context;
  for (const kind of ['least', 'full']) {
    const path = await storeOf(kind, context);
    const snapshot = await Snapshot.open(path, 'bench');
    const closing = [];
    for (let i = 0; i < runs; i++) {
      const start = now();
      const vm = await snapshot.restore();
      record(figureOf(kind, 'restore_file_ready'), now() - start);
      await runToReady(vm);
      record(figureOf(kind, 'restore_file_first_exit'), now() - start);
      const closed = vm.close();
      if (kind === 'full') closing.push(closed);
      else await closed;
    }
    await Promise.all(closing);
    snapshot.close();
    for (let i = 0; i < runs; i++) {
      const start = now();
      const store = await SnapshotStore.open(path);
      const opened = await Snapshot.open(store, 'bench');
      const vm = await opened.restore();
      record(figureOf(kind, 'restore_open_ready'), now() - start);
      await vm.close();
      opened.close();
    }
  }
}
