// New machines from a snapshot's files, the page cache warm.
import { join } from 'node:path';
import { Snapshot, SnapshotStore } from '../../../dist/index.js';
import { createMachine, figureOf, fillMemory, measureRestores, setPages } from '../machines.mjs';

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
    const names = ['restore_file_ready', 'restore_file_first_exit'];
    await measureRestores(kind, snapshot, names, context);
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
