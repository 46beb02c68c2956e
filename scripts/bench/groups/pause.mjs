// How long a running machine stands still when it was frozen before: for another snapshot in memory, as
// a fork takes it, and for an incremental one in a store. All of its memory was written once; since the
// freeze before it has written ten pages over and over, or 16 MiB.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { LATER_MIB } from '../figures.mjs';
import { pagesOf, setLater, startPopulated, untilWritten } from '../machines.mjs';

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

/** @returns the last one, which is the next one's parent. */
async function measureIncrements(vm, name, pages, parent, { slowRuns, record }) {
  let before = parent;
  for (let i = 0; i < slowRuns; i++) {
    await untilWritten(vm, pages);
    const next = await vm.snapshot({ store: before.store, parent: before, durable: false });
    record(name, next.stats.pauseMs * 1000);
    before.close();
    before = next;
  }
  return before;
}

async function measureGuest(vm, context) {
  const { wanted, scratch } = context;
  const guests = [
    ['idle', 10],
    ['writing', LATER_PAGES],
  ];
  let parent;
  for (const [guest, pages] of guests) {
    const [later, increment] = [`later_pause_${guest}`, `increment_pause_${guest}`];
    if (![later, increment].some(wanted)) continue;
    await setLater(vm, pages);
    if (wanted(later)) await measureLater(vm, later, pages, context);
    if (!wanted(increment)) continue;
    parent ??= await vm.snapshot({ store: join(scratch, 'pause'), durable: false });
    parent = await measureIncrements(vm, increment, pages, parent, context);
  }
  parent?.close();
}

export async function measure(context) {
  const vm = await startPopulated(context.memory, pagesOf(context.memory), 10);
  try {
    await measureGuest(vm, context);
  } finally {
    await vm.close();
    rmSync(join(context.scratch, 'pause'), { recursive: true, force: true });
  }
}
