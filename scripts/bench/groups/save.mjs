// A whole snapshot of a machine that stands still: freeze, checksums, files, commit.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { SnapshotStore } from '../../../dist/index.js';
import { createMachine, fillMemory } from '../machines.mjs';

// The first is not counted, as in floor/files.c and for the reason given there.
async function measureSaves(name, durable, { memory, scratch, slowRuns, record, now }) {
  const path = join(scratch, 'save');
  for (let i = -1; i < slowRuns; i++) {
    const store = await SnapshotStore.open(path, { create: true });
    const vm = await createMachine('full', memory);
    fillMemory(vm, memory);
    const start = now();
    const snapshot = await vm.snapshot({ store, tag: 'bench', durable });
    if (i >= 0) record(name, now() - start);
    snapshot.close();
    await vm.close();
    rmSync(path, { recursive: true });
  }
}

export async function measure(context) {
  const figures = [
    ['save_full_page_cache', false],
    ['save_full_durable', true],
  ];
  for (const [name, durable] of figures) {
    if (context.wanted(name)) await measureSaves(name, durable, context);
  }
}
