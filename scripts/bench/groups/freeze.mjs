// How long a running machine stands still when its memory is frozen for the first time.
import { pagesOf, startPopulated } from '../machines.mjs';

/** `pages`: how many the guest has written; `later`: how many it writes over and over. */
async function pauseOf(pages, later, { memory }) {
  const vm = await startPopulated(memory, pages, later);
  try {
    const snapshot = await vm.snapshot();
    snapshot.close();
    return snapshot.pauseMs * 1000;
  } finally {
    await vm.close();
  }
}

export async function measure(context) {
  const all = pagesOf(context.memory);
  const guests = [
    ['freeze_pause_idle', 10, 10],
    ['freeze_pause_populated_idle', all, 10],
    ['freeze_pause_populated', all, all],
  ];
  for (const [name, pages, later] of guests) {
    if (!context.wanted(name)) continue;
    for (let i = 0; i < context.slowRuns; i++) {
      context.record(name, await pauseOf(pages, later, context));
    }
  }
}
