// How long a running machine stands still when it was frozen before: for another snapshot in memory, as
// a fork takes it, and for an incremental one in a store. All of its memory was written once; since the
// freeze before it has written ten pages over and over, or 16 MiB.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { LATER_MIB } from '../figures.mjs';
import { pagesOf, startPopulated, untilWritten } from '../machines.mjs';

const LATER_PAGES = (LATER_MIB * 2 ** 20) / 4096;

async function measureLater(vm, name, pages, { slowRuns, record }) {
  let before = await vm.snapshot();
  for (let i = 0; i < slowRuns; i++) {
    await untilWritten(vm, pages);
    const next = await vm.snapshot();
    record(name, next.pauseMs * 1000);
    before.close();
    before = next;
  }
  before.close();
}

async function measureIncrements(vm, name, pages, { slowRuns, record, scratch }) {
  const store = join(scratch, 'pause');
  try {
    let parent = await vm.snapshot({ store, durable: false });
    for (let i = 0; i < slowRuns; i++) {
      await untilWritten(vm, pages);
      const next = await vm.snapshot({ store, parent, durable: false });
      record(name, next.stats.pauseMs * 1000);
      parent.close();
      parent = next;
    }
    parent.close();
  } finally {
    rmSync(store, { recursive: true, force: true });
  }
}

export async function measure(context) {
  const figures = [
    ['later_pause_idle', 10, measureLater],
    ['later_pause_writing', LATER_PAGES, measureLater],
    ['increment_pause_idle', 10, measureIncrements],
    ['increment_pause_writing', LATER_PAGES, measureIncrements],
  ];
  for (const [name, later, measureFigure] of figures) {
    if (!context.wanted(name)) continue;
    const vm = await startPopulated(context.memory, pagesOf(context.memory), later);
    try {
      await measureFigure(vm, name, later, context);
    } finally {
      await vm.close();
    }
  }
}
