// How long a running machine stands still when its memory is frozen for the first time.
import { rmSync } from 'node:fs';
import { join } from 'node:path';
import { createMachine, pagesOf, passDone, setPages } from '../machines.mjs';

/** `pages`: how many the guest has written; `later`: how many it writes over and over. */
async function pauseOf(pages, later, { memory, scratch }) {
  const store = join(scratch, 'freeze');
  const vm = await createMachine('full', memory);
  try {
    await setPages(vm, pages);
    await vm.start();
    await passDone(vm, pages);
    if (later !== pages) {
      await vm.pause();
      // The pass that it is in ends with this page.
      await vm.vcpus[0].setRegs({ r15: BigInt(later), rcx: 1n });
      await vm.start();
    }
    const snapshot = await vm.snapshot({ store, tag: 'bench', durable: false });
    snapshot.close();
    return snapshot.stats.pauseMs * 1000;
  } finally {
    await vm.close();
    rmSync(store, { recursive: true, force: true });
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
