// A whole snapshot of a machine that stands still: freeze, checksums, files, commit.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { SnapshotStore } from '../../../dist/index.js';
import { createMachine, fillMemory } from '../machines.mjs';

// The first is not counted, as in floor/files.c and for the reason given there.
async function measureSaves(names, durable, { memory, scratch, slowRuns, record, now }) {
  const path = join(scratch, 'save');
  for (let i = -1; i < slowRuns; i++) {
    const store = await SnapshotStore.open(path, { create: true });
    const vm = await createMachine('full', memory);
    fillMemory(vm, memory);
    const start = now();
    const snapshot = await vm.snapshot({ store, tag: 'bench', durable });
    const time = now() - start;
    if (i >= 0) for (const name of names) record(name, time);
    snapshot.close();
    await vm.close();
    rmSync(path, { recursive: true });
  }
}

export async function measure(context) {
  // The same work, beside two floors.
  const figures = [
    [['save_full_page_cache', 'save_new_file'], false],
    [['save_full_durable'], true],
  ];
  for (const [names, durable] of figures) {
    const wanted = names.filter(context.wanted);
    if (wanted.length > 0) await measureSaves(wanted, durable, context);
  }
}
